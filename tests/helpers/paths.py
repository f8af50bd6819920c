"""Folders of the project."""

from pathlib import Path


PROJECT = Path(__file__).resolve().parents[2]
DATA = PROJECT / "data"
REFERENCE = PROJECT / "tests" / "reference"
