"""What the runs of a grid have brought, read and compared."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from utils.experiments.comparison import Comparison, Row, compare, mark
from utils.experiments.finished_runs import FinishedRun, System, check_same_data, read_runs
from utils.experiments.grid import (
    ABLATION,
    ADJUSTED,
    ADJUSTED_CONTINUAL,
    ENGLISH,
    ORIGINAL,
    ORIGINAL_CONTINUAL,
    Grid,
    Run,
)
from utils.experiments.runner import check_done
from utils.experiments.significance import holm


METRICS = {"nli": "accuracy", "ner": "f1", "qa": "f1", "qa-cross": "f1", "xsr": "accuracy"}
# What is compared with what.
COMPARISONS = (
    (ADJUSTED, ORIGINAL),
    (ADJUSTED_CONTINUAL, ORIGINAL),
    (ORIGINAL_CONTINUAL, ORIGINAL),
    (ABLATION, ORIGINAL),
    (ADJUSTED_CONTINUAL, ADJUSTED),
    (ADJUSTED_CONTINUAL, ABLATION),
)


@dataclass
class Results:
    """What the runs of a grid have brought.

    Attributes:
        grid: what was to be run.
        cells: task → regime → language or pair of languages → its share by run.
        rows: (task, regime, baseline) → language → the comparison.
        n_comparisons: that p-values are adjusted for.
        n_examples: task → language → how many.
        distances: language → what `run_distances.py` has found.
        missing: name → why a run is missing.
        alpha: level of significance over all comparisons.
        n_resamples: of the bootstrap.
        tables: all comparisons.
    """

    grid: Grid
    cells: dict[str, dict[str, dict[str, list[float]]]]
    rows: dict[tuple[str, str, str], dict[str, Row]]
    n_comparisons: int
    n_examples: dict[str, dict[str, int]]
    distances: dict[str, dict[str, Any]]
    missing: dict[str, str]
    alpha: float = 0.05
    n_resamples: int = 10_000
    tables: list[Comparison] = field(default_factory=list)

    def mark(self, row: Row) -> str:
        return mark(row, self.alpha)


def read_results(
    grid: Grid, runs: Sequence[Run], output_dir: Path, missing: Mapping[str, str], n_resamples: int = 10_000
) -> Results:
    """Read what is done, and compare.

    Args:
        grid, runs: what was planned.
        output_dir: where it was done.
        missing: name → why a run failed.
        n_resamples: of the bootstrap.
    """
    results = Results(grid, {}, {}, 0, {}, {}, dict(missing), n_resamples=n_resamples)
    done = [run for run in runs if check_done(run, output_dir)]
    names = {run.name for run in done}
    results.missing |= {run.name: "not run yet" for run in runs if run.name not in names and run.name not in missing}
    for task in grid.tasks:
        planned = [run for run in done if run.task == task]
        if not planned:
            continue
        for name, found in _parts(task, _read(planned, output_dir)):
            results.cells[name] = cells_of(found, METRICS[name])
            results.n_examples[name] = {
                language: one.n_examples for _, _, run in found for language, one in run.sets.items()
            }
            for regime, baseline in COMPARISONS:
                if comparison := _comparison(found, regime, baseline, METRICS[name], n_resamples):
                    results.tables.append(comparison)
                    rows = {row.language: row for row in comparison.rows if row.difference is not None}
                    results.rows[name, regime, baseline] = rows
    tested = [row for rows in results.rows.values() for row in rows.values() if row.bootstrap]
    results.n_comparisons = len(tested)
    for row, p_value in zip(tested, holm([row.bootstrap.p_value for row in tested])):
        row.p_holm = p_value
    for run in done:
        if run.task == "distances":
            path = output_dir / run.name / "all_results.json"
            results.distances[run.language] = json.loads(path.read_text(encoding="utf-8"))
    return results


# Regime, language that it is about (None: all), and the run.
_Found = tuple[str, str | None, FinishedRun]


def _read(planned: Sequence[Run], output_dir: Path) -> list[_Found]:
    """The finished runs, with the cells of the grid that they are for."""
    folders = {str((output_dir / run.name).resolve()): run for run in planned}
    finished = read_runs([str(output_dir / run.name) for run in planned])
    check_same_data(finished)
    found = []
    for run in finished:
        place = Path(run.folder).resolve()
        of = folders.get(str(place)) or folders[str(place.parent)]  # (each model has a folder in that of run_xsr.py)
        regime = of.regime or (ORIGINAL if run.seed is None else ADJUSTED)
        found.append((regime, of.language if of.regime != ORIGINAL else None, run))
    return found


def _parts(task: str, found: Sequence[_Found]) -> Iterator[tuple[str, list[_Found]]]:
    """A task by its parts: questions in one language, and across."""
    if task != "qa":
        yield task, list(found)
        return
    for name, across in (("qa", False), ("qa-cross", True)):
        part = [
            (regime, language, replace(run, sets={k: v for k, v in run.sets.items() if ("-" in k) == across}))
            for regime, language, run in found
        ]
        if any(run.sets for *_, run in part):
            yield name, part


def cells_of(found: Sequence[_Found], metric: str) -> dict[str, dict[str, list[float]]]:
    cells: dict[str, dict[str, list[float]]] = {}
    for regime, _, run in found:
        for language, one in run.sets.items():
            cells.setdefault(regime, {}).setdefault(language, []).append(one.results[metric])
    return cells


@dataclass
class _Pairs:
    """Which system each is compared with (as `utils.experiments.comparison.Baseline`)."""

    of_system: dict[System, System]

    def of(self, system: System) -> System:
        return self.of_system.get(system, system)


def _comparison(
    found: Sequence[_Found], regime: str, baseline: str, metric: str, n_resamples: int
) -> Comparison | None:
    """The runs of a regime, each in its own language, and those of the baseline; None if either is missing."""
    runs, pairs = [], {}
    bases = [(language, run) for which, language, run in found if which == baseline]
    for which, language, run in found:
        if which != regime or not bases:
            continue
        others = [other for of, other in bases if of in (None, language)]
        if others:
            pairs[run.system] = others[0].system
            runs.append(_without_english(run, language))
    if not runs:
        return None
    seen = {id(other): (language, other) for language, other in bases}
    runs += [_without_english(other, language) for language, other in seen.values()]
    return compare([run for run in runs if run.sets], _Pairs(pairs), [metric], n_resamples)


def _without_english(run: FinishedRun, language: str | None) -> FinishedRun:
    """The run with the sets that are about its language: English alone is not."""
    kept = {
        name: one
        for name, one in run.sets.items()
        if name != ENGLISH and (language is None or language in name.split("-"))
    }
    return replace(run, sets=kept)
