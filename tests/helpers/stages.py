"""A script as far as its first stages: its arguments, and what it reads."""

import importlib
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from helpers import tiny
from utils.core import arguments
from utils.tasks.reader import TaskReader


SCRIPTS = (
    "run_align",
    "run_nli",
    "run_ner",
    "run_qa",
    "run_pos",
    "run_pawsx",
    "run_xsr",
    "run_distances",
    "view_links",
    "compare_runs",
    "replicate",
)
TASK_SCRIPTS = ("run_nli", "run_ner", "run_qa", "run_pos", "run_pawsx")


class Reached(Exception):  # noqa: N818
    """A script has come to a function that was to stop it; with the function's arguments."""

    def __init__(self, *values: Any) -> None:
        super().__init__(*values)
        self.values = values


def stop_at(patch: pytest.MonkeyPatch, module: ModuleType, name: str) -> None:
    """Let a script end, with `Reached`, where it calls a function."""

    def stop(*values: Any, **_: Any) -> None:
        raise Reached(*values)

    patch.setattr(module, name, stop)


def stopped(script: str, name: str, *words: object, module: ModuleType | None = None) -> tuple[Any, ...]:
    """Run a script up to its call of a function (by default of its own module); returns the arguments of the call."""
    main = importlib.import_module(script)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, module or main, name)
        patch.setattr(sys, "argv", [f"{script}.py", *map(str, words)])
        with pytest.raises(Reached) as caught:
            main.main()
    return caught.value.values


@cache
def reader_of(script: str) -> TaskReader:
    """How the script of a task reads its examples."""
    with tempfile.TemporaryDirectory() as folder:
        model = tiny.checkpoint(Path(folder, "encoder"))
        return stopped(
            script, "read_examples", "--model", model, "--do_train", "--output_dir", Path(folder, "out"), "--use_cpu"
        )[0]


@cache
def groups_of(script: str) -> list[type]:
    """The dataclasses of a script's arguments."""
    return stopped(script, "_Parser", module=arguments)[0]
