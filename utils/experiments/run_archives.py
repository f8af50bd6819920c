"""Finished runs in one small file: what comparisons need of them, without models, texts or predictions."""

from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from utils.core.arguments import is_language
from utils.core.errors import InputError, shown
from utils.core.files import json_text, write_lines
from utils.core.tables import read_json
from utils.experiments.evaluated_sets import TITLES, EvaluatedSet, difference_in_data
from utils.experiments.finished_runs import FinishedRun, System, read_runs, with_systems
from utils.experiments.significance import corpus_f1


SUFFIX = ".runs.jsonl.gz"
# (What examples say stays out; that two runs had the same ones is known from their fingerprints.)
_TEXTS = ("ids", "gold")
# What is computed again differs by less than this from what was written.
_ROUNDING = 1e-6
# What rows of older archives do not have: they have the name of their system instead.
_LATER = ("original", "steps", "title", "evaluation")


def read_runs_and_archives(paths: Sequence[str]) -> list[FinishedRun]:
    """Read runs from their output folders and from archives: `*.runs.jsonl.gz`, or a folder in which there are some.

    Raises:
        InputError: naming the file, the line and the remedy.
    """
    archives = {path: list(_archives_in(Path(path))) for path in paths}
    folders = [path for path in paths if not archives[path]]
    runs = read_runs(folders) if folders else []
    files = dict.fromkeys(file.resolve() for found in archives.values() for file in found)
    # (All are named together, by what distinguishes them.)
    together = with_systems([*runs, *(run for file in files for run in _read_archive(file))])
    return [*together[: len(runs)], *_new(together[len(runs) :], together[: len(runs)])]


def _new(runs: Sequence[FinishedRun], known: Sequence[FinishedRun]) -> Iterator[FinishedRun]:
    """The runs but the sets of which an earlier or a known one says the same: archives of two grids have the same original,
    perhaps measured in other languages, too.
    """
    places: dict[tuple[str, System, int | None], list[FinishedRun]] = {}
    for run in known:
        places.setdefault((run.task, run.system, run.seed), []).append(run)
    for run in runs:
        same = places.setdefault((run.task, run.system, run.seed), [])
        said = {
            name for other in same for name in run.sets.keys() & other.sets.keys() if _say_the_same(run, other, name)
        }
        if said < run.sets.keys():
            same.append(run)
            yield run.only(name for name in run.sets if name not in said)


def _say_the_same(one: FinishedRun, other: FinishedRun, name: str) -> bool:
    """Whether two runs of a system with the same seed have the same score for every example of a set."""
    here, there = one.sets[name], other.sets[name]
    return (
        not difference_in_data(replace(here, ids=[], gold=[]), there)
        and here.results == there.results
        and here.scores.keys() == there.scores.keys()
        and all(np.array_equal(here.scores[metric], there.scores[metric]) for metric in here.scores)
    )


def write_archive(runs: Sequence[FinishedRun], path: str | Path) -> None:
    """Write runs as lines of JSON, gzipped; the same runs make the same file. InputError unless named `*.runs.jsonl.gz`."""
    check_archive_name(path)
    folder = Path(path).resolve().parent
    write_lines(path, (json_text(_as_row(run, folder), sort_keys=True) for run in runs))


def check_archive_name(path: str | Path) -> None:
    """Raise InputError if a file of this name would not be read again as an archive of runs."""
    if not str(path).endswith(SUFFIX):
        raise InputError(f"The archive {path} must have a name that ends in {SUFFIX}, by which it is recognized.")


def _archives_in(path: Path) -> Iterator[Path]:
    if str(path).endswith(SUFFIX):
        yield path
    elif path.is_dir() and not (path / "run.json").exists():
        yield from sorted(path.glob(f"*{SUFFIX}"))


def _as_row(run: FinishedRun, beside: Path) -> dict[str, Any]:
    """A run as JSON. Its folder is named from that of the archive if it lies there, or else without those above."""
    place = Path(run.folder).resolve()
    parts = place.relative_to(beside).parts if place.is_relative_to(beside) else place.parts[-2:]
    row = {**vars(run), "folder": "/".join(parts)}
    if original := run.original:  # (named when it is read: what distinguishes it depends on the runs beside it)
        del row["system"]
        row["original"] = {**original._asdict(), "name": "/".join(Path(original.name).parts[-2:])}
        row["steps"] = [step._asdict() for step in run.steps]
    else:
        row = {name: value for name, value in row.items() if name not in _LATER} | {"system": run.system._asdict()}
    sets = {
        name: {key: value for key, value in vars(one).items() if key not in _TEXTS}
        | {"scores": {metric: _compact(values) for metric, values in one.scores.items()}}
        for name, one in run.sets.items()
    }
    return row | {"sets": sets}


def _compact(values: np.ndarray) -> list:
    """The scores as a list, of whole numbers where they all are."""
    whole = values.astype(int)
    return (whole if (whole == values).all() else values).tolist()


def _read_archive(path: Path) -> Iterator[FinishedRun]:
    empty = True
    for where, row in read_json(path, like='{"task": …, "original": …, "sets": …}'):
        empty = False
        try:
            yield _run(row)
        except ValueError as error:
            raise InputError(f"{where} is no run ({error}); archive the runs again with --archive_file.") from None
    if empty:
        raise InputError(f"The archive {path} holds no run; archive the runs again with --archive_file.")


def _run(row: dict[str, Any]) -> FinishedRun:
    """The run of a row; ValueError saying what is wrong."""
    if row.get("original") is None:  # of an archive from before the original was kept
        if later := [name for name in _LATER if row.pop(name, None)]:
            raise ValueError(f"it has {later[0]} without original")
        row |= {"original": None, "steps": [], "title": "", "evaluation": {}}
    elif "system" in row:
        raise ValueError("it has both system and original")
    else:
        row = {"evaluation": {}, **row, "system": System("", "")._asdict()}  # (kept later than the original)
    run: FinishedRun = _built(FinishedRun, row, "it")
    if run.task not in TITLES or not run.sets:
        raise ValueError("it has an unknown task, or nothing was evaluated")
    if run.original and not run.original.name:
        raise ValueError("its original has no name")
    if any(step.kind not in TITLES for step in run.steps):
        raise ValueError("one of its steps is no training")
    for name, found in run.sets.items():
        if not is_language(name):
            raise ValueError(f"{shown(name)} is not a language")
        _check_set(name, found)
    return run


def _check_set(name: str, found: EvaluatedSet) -> None:
    """Raise ValueError if results, scores and the number of examples do not agree."""
    if found.n_examples < 1 or not found.results:
        raise ValueError(f"{name} has no examples, or no results")
    if found.representation and not found.representation.keys() >= {"layer"}:
        raise ValueError(f"{name} has a representation without layer")
    for metric, result in found.results.items():
        if not 0 <= result <= 1:
            raise ValueError(f"the {metric} of {name} is {result:g} instead of 0 to 1")
    for metric, values in found.scores.items():
        counts = values.ndim == 2
        if values.shape != ((found.n_examples, 3) if counts else (found.n_examples,)):
            raise ValueError(f"{name} has no {metric} for each of {found.n_examples} examples")
        if not (values >= 0).all() or not (values <= (np.inf if counts else 1)).all():
            raise ValueError(f"{name} has a score of {metric} out of its range")
        expected = float(corpus_f1(values.sum(axis=0)) if counts else values.mean())
        if abs(found.results.get(metric, np.inf) - expected) > _ROUNDING:
            raise ValueError(f"the {metric} of {name} is not that of its scores, {expected:.6g}")


def _built(kind: Any, value: Any, name: str) -> Any:
    """A value of JSON as what a field is declared to be; ValueError if it has another type, or a part is missing or unknown."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return None if value is None else _built(next(one for one in inner if one is not NoneType), value, name)
    if kind is Any:
        return value
    if kind is np.ndarray:
        return _array(value, name)
    if kind is float and type(value) is int:
        value = float(value) if abs(value) < 2**53 else np.inf
    if isinstance(value, dict) and (is_dataclass(kind) or hasattr(kind, "_fields")):
        return _built_of_parts(kind, value, name)
    if isinstance(value, dict) and origin is dict:
        return {key: _built(inner[1], one, f"{name}.{key}") for key, one in value.items()}
    if isinstance(value, list) and origin in (list, tuple):
        return origin(_built(inner[0], one, f"{name}.{k}") for k, one in enumerate(value, start=1))
    if type(value) is not kind or value in (np.inf, -np.inf) or value != value:
        raise ValueError(f"{name} is {shown(value)}, of a wrong type or not finite")
    return value


def _built_of_parts(kind: Any, value: dict[str, Any], name: str) -> Any:
    types = {key: one for key, one in get_type_hints(kind).items() if key not in _TEXTS}
    if wrong := sorted(types.keys() ^ value.keys()):
        raise ValueError(f"{name} {'has no' if wrong[0] in types else 'has the unknown'} {wrong[0]}")
    return kind(**{key: _built(types[key], one, key) for key, one in value.items()})


def _array(value: Any, name: str) -> np.ndarray:
    """Scores: a list of numbers, or of three counts each."""
    rows: list[Any] = value if isinstance(value, list) else [None]
    counts = bool(rows) and isinstance(rows[0], list)
    if any(isinstance(row, list) != counts or (counts and len(row) != 3) for row in rows):
        raise ValueError(f"{name} is no list of numbers, or of three counts each")
    numbers = [one for row in rows for one in row] if counts else rows
    if not all(type(one) in (int, float) and abs(one) < 2**53 for one in numbers):
        raise ValueError(f"{name} has something else than finite numbers")
    return np.array(rows, dtype=float)
