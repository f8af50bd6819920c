"""The record of a run, `run.json`: arguments, versions, commit of the code."""

import platform
import subprocess
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from utils.core.arguments import hyperparameters, variant_names
from utils.core.errors import InputError
from utils.core.files import read_json_object
from utils.core.kept_help import CODE
from utils.core.redaction import redact


# `task` in the `run.json` of an adjustment. (That of a fine-tuning is its pipeline tag.)
ALIGNMENT = "cross-lingual-adjustment"
_PACKAGES = ("torch", "transformers", "accelerate", "datasets", "evaluate", "peft", "tokenizers", "sil-thot")


def run_record(
    arguments: Iterable[Any], unused: Sequence[Any] = (), but: Collection[str] = (), **facts: Any
) -> dict[str, Any]:
    """How a run came about, for `run.json`: arguments, hyperparameters, what makes it another system than the usual one
    (`variant`), versions, commit of this code, and given facts.

    Args:
        arguments: the script's argument dataclasses. Secrets are taken out.
        unused: those that had no effect on what was learned; their hyperparameters are omitted.
        but: names of arguments among these that had one.
    """
    values: dict[str, Any] = {}
    hyperparameter_names: list[str] = []
    variant: list[str] = []
    for group in arguments:
        values |= group.to_dict() if hasattr(group, "to_dict") else asdict(group)
        only = but if any(group is other for other in unused) else values
        hyperparameter_names += [name for name in hyperparameters(group) if name in only]
        variant += variant_names(group, only) if is_dataclass(group) else []
    facts |= {"hyperparameters": {name: values[name] for name in hyperparameter_names}, "variant": variant}
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return redact({**facts, "arguments": values, "versions": versions, "git_commit": _git_commit()})


def read_record(path: str | Path, remedy: str) -> dict[str, Any]:
    """The content of a `run.json`; InputError, whose message ends with the remedy, unless what is read back has its type."""
    record = read_json_object(path, remedy)
    if wrong := _misfit(record, _SHAPE):
        raise InputError(f"The file {path} is damaged ({wrong} has a value of another type); {remedy}.")
    return record


_DATA = {"examples": int, "pairs": int, "links": int, "sentences": int, "sha256": str, "split": str | None}
# What is read back from a record: types; a mapping says them by name (`...`: of all other names) and a list of its items.
_SHAPE: dict[Any, Any] = {
    **dict.fromkeys(("base_model_revision", "task", "task_name", "regime"), str | None),
    **dict.fromkeys(("train_data", "eval_data", "predict_data"), {"examples": int, "sha256": str, ...: _DATA}),
    "base_model": str | dict | None,
    "seed": int | None,
    "arguments": {
        "languages": [str],
        "alignment_objective": str | None,
        "train_language": str | None,
        "few_shot": [str],
    },
    "hyperparameters": {},
    "variant": [str],
}


def _misfit(value: Any, shape: Any, name: str = "it") -> str | None:
    """The name of a part of a JSON value that does not have its shape."""
    if not isinstance(shape, dict | list):
        return None if isinstance(value, shape) else name
    if value is None:
        return None
    if not isinstance(value, type(shape)):
        return name
    parts = value.items() if isinstance(value, dict) else ((name, one) for one in value)
    found = (
        _misfit(one, shape.get(k, shape.get(..., object)) if isinstance(shape, dict) else shape[0], k)
        for k, one in parts
    )
    return next(filter(None, found), None)


def _git_commit() -> str | None:
    """The commit of this code, with `+` behind it if files were changed since; None outside a git checkout."""
    describe = ["git", "-C", str(CODE), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        return subprocess.run(describe, capture_output=True, encoding="utf-8", check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
