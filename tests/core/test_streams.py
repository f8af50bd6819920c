"""Consoles that cannot show every character."""

import io
import os
import subprocess
import sys

import pytest

from helpers.paths import PROJECT
from helpers.runs import write_nli
from utils.core.streams import prepare_streams


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "utf-8"])
def test_what_a_console_lacks_is_escaped(encoding, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding))
    prepare_streams()
    print("हिन्दी → ±")  # (the line is flushed)
    shown = raw.getvalue().decode(encoding)
    assert shown.rstrip() == "हिन्दी → ±".encode(encoding, "backslashreplace").decode(encoding)


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_other_streams_stay(stream, monkeypatch):
    monkeypatch.setattr(sys, "stdout", stream)
    prepare_streams()


@pytest.mark.parametrize("arguments", [["run", "--baseline", "other", "--n_resamples", "100"], ["--help"]])
def test_a_script_in_the_plainest_environment(tmp_path, arguments):
    """The table and the help have ± and –."""
    write_nli(tmp_path / "run", [1, 0] * 20, language="hi", seed=1)
    write_nli(tmp_path / "other", [1, 1] * 20, language="hi", seed=1, base_model="xlm-r")
    words = [str(tmp_path / word) if word in ("run", "other") else word for word in arguments]
    output = [] if "--help" in words else ["--output_dir", str(tmp_path / "out")]
    plain = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = subprocess.run(
        [sys.executable, PROJECT / "compare_runs.py", *words, *output],
        env={**os.environ, **plain},
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.isascii()
    assert b"\\xb1" in ran.stdout
