"""Finished runs in one small file: what comparisons need of them, without models, texts or predictions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from utils.core.errors import InputError
from utils.core.files import json_text, write_lines
from utils.core.tables import read_json
from utils.experiments.evaluated_sets import TITLES, EvaluatedSet, difference_in_data
from utils.experiments.finished_runs import FinishedRun, Original, Step, System, read_runs, with_systems


SUFFIX = ".runs.jsonl.gz"
# (What examples say stays out; that two runs had the same ones is known from their fingerprints.)
_LEFT_OUT = ("ids", "gold", "scores")
# What rows of older archives do not have: they have the name of their system instead.
_LATER = ("original", "steps", "title")


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
    """The runs but those that say what an earlier or a known one says: archives of two parts of a grid have the same original."""
    places: dict[tuple[str, System, int | None], list[FinishedRun]] = {}
    for run in known:
        places.setdefault((run.task, run.system, run.seed), []).append(run)
    for run in runs:
        same = places.setdefault((run.task, run.system, run.seed), [])
        if not any(_say_the_same(run, other) for other in same):
            same.append(run)
            yield run


def _say_the_same(one: FinishedRun, other: FinishedRun) -> bool:
    """Whether two runs of a system with the same seed have the same score for every example."""
    return one.sets.keys() == other.sets.keys() and all(
        not difference_in_data(replace(here, ids=[], gold=[]), there)
        and here.results == there.results
        and here.scores.keys() == there.scores.keys()
        and all(np.array_equal(here.scores[metric], there.scores[metric]) for metric in here.scores)
        for here, there in ((one.sets[name], other.sets[name]) for name in one.sets)
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
        name: {key: value for key, value in vars(one).items() if key not in _LEFT_OUT}
        | {"scores": {metric: _compact(values) for metric, values in one.scores.items()}}
        for name, one in run.sets.items()
    }
    return row | {"sets": sets}


def _compact(values: np.ndarray) -> list:
    """The scores as a list, of whole numbers where they all are."""
    whole = values.astype(int)
    return (whole if (whole == values).all() else values).tolist()


def _read_archive(path: Path) -> Iterator[FinishedRun]:
    for where, row in read_json(path, like='{"task": …, "system": …, "sets": …}'):
        try:
            sets = {name: _evaluated_set(one) for name, one in row.pop("sets").items()}
            if original := row.get("original"):
                row |= {"system": System("", ""), "original": Original(**_texts(original))}
                row["steps"] = tuple(map(_step, row["steps"]))
            else:  # of an archive from before the original was kept
                row["system"] = System(**row["system"])
            run = FinishedRun(**row, sets=sets)
            if run.task not in TITLES or not sets:
                raise ValueError("it has an unknown task, or nothing was evaluated")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{where} is not a run ({error}); archive the runs again with --archive_file.") from None
        yield run


def _texts(row: Mapping[Any, Any]) -> Mapping[Any, Any]:
    if wrong := [value for value in row.values() if not isinstance(value, str)]:
        raise TypeError(f"{wrong[0]} is not text")
    return row


def _step(row: Mapping[str, Any]) -> Step:
    step = Step(**{**row, "languages": tuple(row["languages"]), "variant": tuple(row["variant"])})
    _texts(dict(enumerate((step.regime, *step.languages, *step.variant))))
    if step.kind not in TITLES or not isinstance(step.seed, int | None):
        raise ValueError(f"{step.kind} with seed {step.seed} is not a training")
    return step


def _evaluated_set(row: Mapping[str, Any]) -> EvaluatedSet:
    scores = {metric: np.array(values, dtype=float) for metric, values in row["scores"].items()}
    found = EvaluatedSet(**{**row, "scores": scores})
    for metric, values in scores.items():
        shape = (found.n_examples, 3) if values.ndim == 2 else (found.n_examples,)
        if values.shape != shape or not np.isfinite(values).all() or metric not in found.results:
            raise ValueError(f"its {metric} does not have a finite value for each of {found.n_examples} examples")
    return found
