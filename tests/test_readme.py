"""What the README shows can be done."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import tiny
from test_alignment import some_pairs


PROJECT = Path(__file__).parent.parent
README = (PROJECT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(tmp_path, monkeypatch):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    folder = tiny.checkpoint(tmp_path / "encoder")
    example = example.replace("google-bert/bert-base-multilingual-cased", folder)
    monkeypatch.chdir(tmp_path)
    names = {"pairs": some_pairs(8)}
    exec(compile(example.replace('"adjusted"', '"adjusted", use_cpu=True, max_steps=1'), "README.md", "exec"), names)
    assert names["trainer"].state.global_step == 1


def test_every_argument_that_is_shown_exists():
    """No flag in the README that a script does not know."""
    known = ""
    for script in ("run_align.py", "run_xsr.py", "benchmarks/compare_aligners.py"):
        shown = subprocess.run([sys.executable, script, "--help"], cwd=PROJECT, capture_output=True, text=True)
        assert shown.returncode == 0
        known += shown.stdout
    used = set(re.findall(r"(?<![\w-])--[a-z0-9_]+", README.replace("pip install", "")))
    assert len(used) > 20
    assert {flag for flag in used if not re.search(rf"{flag}\b", known)} == set()


def test_every_make_target_that_is_shown_exists():
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_file_that_is_shown_exists():
    for name in set(re.findall(r"`((?:utils|data|tests|benchmarks|docs)/[\w./-]*|run_\w+\.py)`", README)):
        assert (PROJECT / name).exists(), name


def test_commands_parse():
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            shlex.split(line, comments=True)


def test_nothing_is_left_to_fill_in():
    assert not re.findall(r"\b[A-Z]+_[A-Z]+\b|TODO|XXX", README)
