"""Finished runs side by side: mean over seeds, difference from a baseline, and whether it is more than chance."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from utils.core.errors import InputError
from utils.experiments.finished_runs import TASK_NAMES, EvaluatedSet, FinishedRun, System, differing_settings
from utils.experiments.significance import (
    Bootstrap,
    SeedScores,
    cautions,
    discordant_pairs,
    f1_bootstrap,
    holm,
    mcnemar,
    paired_bootstrap,
    paired_t_test,
    seed_scores,
    seeds_may_make,
)


# What is compared if the user does not say: the metric of the task, where it has several.
_USUAL_METRICS = ("accuracy", "f1", "exact_match", "word_retrieval_accuracy")


@dataclass
class Baseline:
    """What a system is compared with: the one with this model or this regime (None: its own), but else the same."""

    model: str | None = None
    regime: str | None = None

    def of(self, system: System) -> System:
        return System(self.model or system.model, self.regime or system.regime)


@dataclass(eq=False)
class Row:
    """A line of the table: a system in a language, by a metric.

    Attributes:
        task, language, metric, split, system: what it is.
        runs: by seed (None for a model as it came).
        n_examples: of the language.
        score: mean and standard deviation over seeds, 0 to 1.
        baseline: the row it is compared with, which may be itself; None if there is no such run, or none was asked for.
        difference: from the baseline; None for the baseline itself.
        bootstrap: interval and p-value; None without predictions.
        p_t_test: of the paired t-test, for means over examples.
        p_mcnemar: for single runs that are right or wrong.
        p_holm: the bootstrap's, adjusted for all rows of the table.
        cautions: why the difference cannot carry a claim.
    """

    task: str
    language: str
    metric: str
    split: str
    system: System
    runs: dict[int | None, FinishedRun]
    n_examples: int
    score: SeedScores
    baseline: "Row | None" = field(default=None, repr=False)
    difference: float | None = None
    bootstrap: Bootstrap | None = None
    p_t_test: float | None = None
    p_mcnemar: float | None = None
    p_holm: float | None = None
    cautions: list[str] = field(default_factory=list)

    @property
    def sets(self) -> list[EvaluatedSet]:
        return [run.sets[self.language] for run in self.runs.values()]

    @property
    def is_baseline(self) -> bool:
        return self.baseline is self

    @property
    def n_seeds(self) -> int | None:
        """None for a model that no seed has had a part in."""
        return None if set(self.runs) == {None} else len(self.runs)


@dataclass
class Comparison:
    """The whole table, and what must be known to read it.

    Attributes:
        rows: sorted by task, metric and language; the baseline before what is compared with it.
        notes: sentences.
        alpha: the level.
    """

    rows: list[Row]
    notes: list[str]
    alpha: float

    def mark(self, row: Row) -> str:
        return mark(row, self.alpha)


def mark(row: Row, alpha: float) -> str:
    """`*` for a significant difference, `(*)` for one that yet cannot carry a claim."""
    if row.p_holm is None or row.p_holm > alpha:
        return ""
    return "(*)" if row.cautions else "*"


def find_baseline(name: str | None, runs: Sequence[FinishedRun]) -> Baseline | None:
    """What the user means by `--baseline`: the folder of a run, a model, a regime, or both as the table shows them.

    Raises:
        InputError: if it is none of these.
    """
    if name is None:
        return None
    systems = [run.system for run in runs]
    for run in runs:
        if name == str(run.system) or Path(name).resolve() == Path(run.folder).resolve():
            return Baseline(*run.system)
    if name in (system.regime for system in systems):
        return Baseline(regime=name)
    if name in (system.model for system in systems):
        return Baseline(model=name)
    known = [
        *dict.fromkeys(system.regime for system in systems),
        *dict.fromkeys(system.model for system in systems),
        *(f'"{system}"' for system in dict.fromkeys(systems)),
    ]
    raise InputError(f"--baseline {name} is neither the folder of one of the runs nor one of: {'; '.join(known)}.")


def compare(
    runs: Sequence[FinishedRun],
    baseline: Baseline | None = None,
    metrics: Sequence[str] | None = None,
    n_resamples: int = 10_000,
    seed: int = 0,
    alpha: float = 0.05,
) -> Comparison:
    """Compare runs that were measured on the same data.

    Args:
        runs: of any tasks.
        baseline: what the others are compared with.
        metrics: names; those of the tasks by default.
        n_resamples, seed: of the bootstrap.
        alpha: level of significance; intervals cover 1 - alpha.

    Raises:
        InputError: for two runs of the same system with the same seed, or a metric that no run has.
    """
    rows = list(_rows(runs, metrics or _USUAL_METRICS))
    if not rows:
        known = sorted({metric for run in runs for one in run.sets.values() for metric in one.results})
        raise InputError(f"No run has the metric {' or '.join(metrics or ())}; there are {', '.join(known)}.")
    by_place = {(row.task, row.language, row.metric, row.system): row for row in rows}
    for row in rows if baseline else ():
        row.baseline = by_place.get((row.task, row.language, row.metric, baseline.of(row.system)))
        if row.baseline and not row.is_baseline:
            _test(row, row.baseline, n_resamples, seed, alpha)
    tested = [row for row in rows if row.bootstrap]
    for row, p_value in zip(tested, holm([row.bootstrap.p_value for row in tested])):
        row.p_holm = p_value
        if p_value <= alpha and seeds_may_make(row.score, row.baseline.score):
            row.cautions.append("a difference of less than twice its standard error over seeds")
    rows.sort(key=_order)
    return Comparison(rows, list(_notes(rows, baseline, len(tested), n_resamples, alpha)), alpha)


def _rows(runs: Sequence[FinishedRun], metrics: Sequence[str]) -> Iterator[Row]:
    """Rows without comparison."""
    groups: dict[tuple[str, str, System], dict[int | None, FinishedRun]] = {}
    for run in runs:
        for language in run.sets:
            of_system = groups.setdefault((run.task, language, run.system), {})
            if run.seed in of_system:
                with_seed = "without a seed" if run.seed is None else f"with seed {run.seed}"
                raise InputError(
                    f"The runs {of_system[run.seed].folder} and {run.folder} are both {run.system}, {with_seed}, in "
                    f"{language}; leave one out."
                )
            of_system[run.seed] = run
    for (task, language, system), of_system in groups.items():
        sets = [run.sets[language] for run in of_system.values()]
        for metric in metrics:
            if all(metric in one.results for one in sets):
                score = seed_scores([one.results[metric] for one in sets])
                yield Row(task, language, metric, sets[0].split, system, of_system, sets[0].n_examples, score)


def _test(row: Row, baseline: Row, n_resamples: int, seed: int, alpha: float) -> None:
    """Add the difference from the baseline, and what the tests say of it."""
    row.difference = row.score.mean - baseline.score.mean
    seeds = [one.n_seeds for one in (row, baseline) if one.n_seeds is not None]
    n_discordant = None
    if all(row.metric in one.scores for one in (*row.sets, *baseline.sets)):
        scores, others = (np.stack([one.scores[row.metric] for one in some.sets]) for some in (row, baseline))
        how = (n_resamples, seed, 1 - alpha)
        if scores.ndim == 3:  # entities, counted by sentence
            row.bootstrap = f1_bootstrap(scores, others, *how)
        else:
            row.bootstrap = paired_bootstrap(scores, others, *how)
            row.p_t_test = paired_t_test(scores, others) if row.n_examples > 1 else None
            if len(scores) == len(others) == 1 and np.isin([scores, others], (0, 1)).all():
                discordant = discordant_pairs(scores[0], others[0])
                row.p_mcnemar, n_discordant = mcnemar(*discordant), sum(discordant)
    row.cautions = cautions(min(seeds, default=None), row.n_examples, n_discordant)


def _order(row: Row) -> tuple[Any, ...]:
    tasks, metrics = list(TASK_NAMES), [*_USUAL_METRICS, row.metric]
    return tasks.index(row.task), metrics.index(row.metric), row.metric, row.language, not row.is_baseline, row.system


def _notes(
    rows: Sequence[Row], baseline: Baseline | None, n_tests: int, n_resamples: int, alpha: float
) -> Iterator[str]:
    if baseline is None:
        yield "Nothing is compared with anything: --baseline says what the others are to be compared with."
    else:
        yield from _notes_on_baselines(rows, baseline)
    if n_tests:
        yield (
            f"`*`: significant, p (Holm) at most {alpha:g}; `(*)`: so, but it cannot carry a claim (see below). p and interval "
            f"by {n_resamples:,} paired bootstrap resamples (of examples; of sentences for entities), scores averaged over "
            f"seeds first; p (Holm) is adjusted for all {n_tests} comparisons. They speak of these trained models on other "
            "examples of the kind, not of other seeds."
        )
    if n_tests / (n_resamples + 1) > alpha:
        yield (
            f"With {n_resamples:,} resamples none of {n_tests} comparisons can be significant; give --n_resamples "
            f"{int(10 * n_tests / alpha):,} or more."
        )
    yield from _notes_on_claims(rows)
    yield from _notes_on_settings(rows)


def _notes_on_baselines(rows: Sequence[Row], baseline: Baseline) -> Iterator[str]:
    for task, of_task in _by_task(row for row in rows if row.baseline is None):
        yield (
            f"{task} ({_languages(of_task)}): there is no run of {_listed(baseline.of(row.system) for row in of_task)}; "
            f"nothing to compare with: {_listed(row.system for row in of_task)}."
        )


def _notes_on_claims(rows: Sequence[Row]) -> Iterator[str]:
    for why in dict.fromkeys(caution for row in rows for caution in row.cautions):
        for task, of_task in _by_task(row for row in rows if why in row.cautions):
            yield (
                f"{task} ({_languages(of_task)}): {why}, which cannot carry a claim about the method: "
                f"{_listed(row.system for row in of_task)}."
            )
    for task, of_task in _by_task(row for row in rows if row.difference is not None and row.bootstrap is None):
        yield f"{task} ({_languages(of_task)}): without predictions of single examples nothing can be tested."


def _notes_on_settings(rows: Sequence[Row]) -> Iterator[str]:
    """Where more than the seed, or more than the system, is different."""
    systems: dict[tuple[str, System], dict[str, FinishedRun]] = {}
    for row in rows:
        systems.setdefault((row.task, row.system), {}).update({run.folder: run for run in row.runs.values()})
    for (_, system), of_system in systems.items():
        first, *others = of_system.values()
        for run in others:
            found = [differing_settings(one, other) for one, other in zip(first.history, run.history)]
            if different := ", ".join(filter(None, found)):
                yield f"Runs of {system} differ in more than the seed: {different} ({first.folder}, {run.folder})."
    pairs = {(row.task, row.system, row.baseline.system): row for row in rows if row.difference is not None}
    for (_, system, baseline), row in pairs.items():
        settings = [next(iter(one.runs.values())).settings for one in (row, row.baseline)]
        if different := differing_settings(*settings):
            yield f"{system} differs from its baseline {baseline} in: {different}."


def _by_task(rows: Iterable[Row]) -> Iterator[tuple[str, list[Row]]]:
    for task, of_task in groupby(rows, lambda row: row.task):  # rows are sorted by task
        yield TASK_NAMES[task], list(of_task)


def _languages(rows: Iterable[Row]) -> str:
    return ", ".join(sorted({row.language for row in rows}))


def _listed(systems: Iterable[System]) -> str:
    return "; ".join(dict.fromkeys(map(str, systems)))
