"""The record of a run, `run.json`: arguments, versions, commit of the code."""

import platform
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from utils.core.arguments import hyperparameters
from utils.core.redaction import redact


_PACKAGES = ("torch", "transformers", "accelerate", "datasets", "evaluate", "peft", "tokenizers", "sil-thot")
_CODE = Path(__file__).resolve().parent.parent.parent


def run_record(arguments: Iterable[Any], unused: Sequence[Any] = (), **facts: Any) -> dict[str, Any]:
    """How a run came about, for `run.json`: arguments, hyperparameters, versions, commit of this code, and given facts.

    Args:
        arguments: the script's argument dataclasses. Secrets are taken out.
        unused: those that had no effect on what was learned; their hyperparameters are omitted.
    """
    values: dict[str, Any] = {}
    hyperparameter_names: list[str] = []
    for group in arguments:
        values |= group.to_dict() if hasattr(group, "to_dict") else asdict(group)
        if not any(group is other for other in unused):
            hyperparameter_names += hyperparameters(group)
    facts["hyperparameters"] = {name: values[name] for name in hyperparameter_names}
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return redact({**facts, "arguments": values, "versions": versions, "git_commit": _git_commit()})


def _git_commit() -> str | None:
    """The commit of this code, with `+` behind it if files were changed since; None outside a git checkout."""
    describe = ["git", "-C", str(_CODE), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
