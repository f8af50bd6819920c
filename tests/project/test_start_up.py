"""What a script imports before it works: a few hundred modules, not the thousands that training needs."""

import importlib
import re
import runpy
import subprocess
import sys

import pytest

from helpers.paths import PROJECT
from helpers.runs import write_nli
from utils.core import kept_help


# What takes a second or more to import, or half of one.
HEAVY = {"torch", "datasets", "peft", "accelerate", "evaluate", "matplotlib", "pandas", "sympy", "scipy.stats"}
_COUNT = """
import pathlib, runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, "")
from utils.core import kept_help
kept_help.FOLDER = pathlib.Path(sys.argv.pop(0))
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert not end.code, end
print(" ".join(sys.modules), file=sys.stderr)
"""


SCRIPTS = sorted(path.stem for path in PROJECT.glob("*.py") if "show_kept_help" in path.read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_help, "FOLDER", tmp_path / "help")
    monkeypatch.setenv("COLUMNS", "100")


def imported_by(*words: object) -> tuple[set[str], str]:
    """The modules that a script has imported when it ends, in a Python of its own, and what it has printed."""
    command = [sys.executable, "-c", _COUNT, *map(str, [kept_help.FOLDER, *words])]
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return set(ended.stderr.splitlines()[-1].split()), ended.stdout


def test_comparing_runs_imports_nothing_that_trains(tmp_path):
    runs = [write_nli(tmp_path / name, [1, 0, 1, 1], regime=name) for name in ("plain", "continual")]
    modules, _ = imported_by("compare_runs.py", *runs, "--output_dir", tmp_path / "out", "--n_resamples", 100)
    assert (tmp_path / "out" / "comparison.md").exists()
    assert not modules & (HEAVY - {"scipy.stats"})


def test_planning_a_grid_imports_nothing_that_trains(tmp_path):
    modules, _ = imported_by("replicate.py", "replicate.yaml", "--dry_run", "--output_dir", tmp_path)
    assert not modules & HEAVY
    assert len(modules) < 1000


def full_help(script: str, monkeypatch, capsys) -> str:
    """What the script's parser prints, which also keeps it."""
    monkeypatch.setattr(sys, "argv", [str(PROJECT / f"{script}.py"), "--help"])
    with pytest.raises(SystemExit):
        importlib.import_module(script).main()
    return capsys.readouterr().out


COMMANDS = sorted(
    str(path.relative_to(PROJECT))
    for folder in (PROJECT, PROJECT / "grids", PROJECT / "benchmarks", PROJECT / "data")
    for path in folder.glob("*.py")
    if "__main__" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("argument", ["--help", "--no_such_argument"])
def test_every_command_shows_help_and_refuses_an_unknown_argument_before_it_works(name, argument, monkeypatch, capsys):
    def work(*_, **__):
        raise AssertionError(f"{name} {argument} began to work")

    monkeypatch.setattr(subprocess, "Popen", work)
    monkeypatch.setattr(sys, "argv", [name, argument])
    monkeypatch.setattr(sys, "path", [str(PROJECT), str((PROJECT / name).parent), *sys.path])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(PROJECT / name), run_name="__main__")
    assert bool(end.value.code) == (argument != "--help")
    assert capsys.readouterr().out.startswith("usage: ") == (argument == "--help")


def test_every_script_that_needs_torch_shows_the_kept_help():
    light = {"compare_runs", "replicate", "quickstart"}
    assert {path.stem for path in PROJECT.glob("*.py")} == {*SCRIPTS, *light}


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_kept_help_is_that_of_the_parser_and_needs_no_library(script, monkeypatch, capsys):
    text = full_help(script, monkeypatch, capsys)
    assert text.startswith(f"usage: {script}.py")
    modules, printed = imported_by(f"{script}.py", "--help")
    assert printed == text
    assert not [name for name in modules if re.match("(torch|transformers|numpy|huggingface_hub)", name)]
    assert len(modules) < 150


def test_the_help_of_all_scripts_is_kept_at_once(monkeypatch, capsys):
    keep = "import pathlib, sys; from utils.core import kept_help; kept_help.FOLDER = pathlib.Path(sys.argv[1]); kept_help.keep_all()"
    ended = subprocess.run([sys.executable, "-c", keep, kept_help.FOLDER], cwd=PROJECT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "")
    for script in SCRIPTS:
        monkeypatch.setattr(sys, "argv", [f"{script}.py", "--help"])
        with pytest.raises(SystemExit):
            kept_help.show_kept_help(f"{script}.py")
        assert capsys.readouterr().out.startswith(f"usage: {script}.py")


def test_kept_help_is_not_shown_for_other_arguments_another_width_or_another_key(monkeypatch, capsys):
    script = str(PROJECT / "run_xsr.py")
    text = full_help("run_xsr", monkeypatch, capsys)
    with monkeypatch.context() as other:
        other.setattr(sys, "argv", [script, "--help", "--layers", "all"])
        kept_help.show_kept_help(script)
        other.setattr(sys, "argv", [script, "-h"])
        other.setenv("COLUMNS", "90")
        kept_help.show_kept_help(script)
        other.setenv("COLUMNS", "100")
        other.setattr(kept_help, "help_key", lambda: "another")
        kept_help.show_kept_help(script)
        assert not capsys.readouterr().out
        other.undo()
        other.setattr(sys, "argv", [script, "-h"])
        with pytest.raises(SystemExit) as end:
            kept_help.show_kept_help(script)
    assert not end.value.code
    assert capsys.readouterr().out == text


def test_the_key_changes_with_code_packages_and_terminal(tmp_path, monkeypatch):
    code, packages = tmp_path / "code", tmp_path / "packages"
    (code / "utils" / "core").mkdir(parents=True)
    (packages / "torch-2.0.dist-info").mkdir(parents=True)
    monkeypatch.setattr(kept_help, "CODE", code)
    monkeypatch.setattr(sys, "path", [str(packages)])
    keys = [kept_help.help_key()]

    def changed() -> bool:
        keys.append(kept_help.help_key())
        return keys[-1] not in keys[:-1]

    assert not changed()
    for path in (code / "run_it.py", code / "utils" / "core" / "it.py"):
        path.write_text("a = 1")
        assert changed()
        path.write_text("a = 2")
        assert changed()
    (packages / "torch-2.0.dist-info").rename(packages / "torch-2.1.dist-info")
    assert changed()
    monkeypatch.setenv("NO_COLOR", "1")
    assert changed()


def test_only_the_help_of_these_scripts_is_kept_and_only_where_it_can_be(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "run_align.py")])
    kept_help.keep_help("text")
    assert not kept_help.FOLDER.exists()
    monkeypatch.setattr(sys, "argv", [str(PROJECT / "run_align.py")])
    monkeypatch.setattr(kept_help, "FOLDER", tmp_path / "file" / "help")
    (tmp_path / "file").write_text("in the way")
    kept_help.keep_help("text")
    assert (tmp_path / "file").read_text() == "in the way"
