"""Whether scripts can read arguments."""

import importlib
import shutil
import sys
from typing import Any

import pytest

from helpers.paths import PROJECT
from utils.core.arguments import parse_arguments
from utils.core.errors import InputError


class Parsed(Exception):
    """The arguments were read."""


@pytest.fixture
def parses(monkeypatch, run, tmp_path):
    """Whether a script can read some arguments, in a folder that has the settings files."""
    for path in (*PROJECT.glob("*.yaml"), *PROJECT.glob("docs/*.yaml")):
        shutil.copy(path, tmp_path)
    shutil.copytree(PROJECT / "grids", tmp_path / "grids")
    (tmp_path / "settings.yaml").write_text("language: hi\nparallel_file: corpus.tsv\noutput_dir: adjusted\n")
    monkeypatch.chdir(tmp_path)

    def read(*dataclasses: type, **options: Any) -> None:
        # (Commands in texts leave out what others have said, so that they are not checked as a whole.)
        parse_arguments(*dataclasses, **{**options, "check": None})
        raise Parsed

    def arguments_parse(script: str, words: list[str]) -> bool:
        module = importlib.import_module(script)
        for place in (module, *(sys.modules[name] for name in list(sys.modules) if name.startswith("utils."))):
            if getattr(place, "parse_arguments", None) is parse_arguments:
                monkeypatch.setattr(place, "parse_arguments", read)
        try:
            run(module.main, *words)
        except Parsed:
            return True
        except InputError as error:
            print(f"{script}: {error}", file=sys.stderr)
            return False
        except SystemExit as end:  # (after --help without an error)
            return not end.code
        finally:
            monkeypatch.undo()
            monkeypatch.chdir(tmp_path)
        raise AssertionError(f"{script} does not parse its arguments")

    return arguments_parse
