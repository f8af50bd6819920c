"""Systems side by side: mean over seeds, difference from a baseline, and whether it is statistically significant."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from utils.core.errors import InputError
from utils.experiments.evaluated_sets import TITLES, EvaluatedSet
from utils.experiments.finished_runs import FinishedRun, System, differing_settings
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


# The metrics of tables, unless the user chooses others.
_USUAL_METRICS = ("accuracy", "f1", "exact_match", "word_retrieval_accuracy")


@dataclass(eq=False)
class Row:
    """A system in one language, by one metric.

    Attributes:
        task, language, metric, split, system: the place of the row in the table.
        runs: by seed (None for a model that was not trained by these scripts).
        n_examples: of the language.
        score: mean and standard deviation over seeds, 0 to 1.
        is_baseline: whether other systems are compared with this one.
        comparison: with the baseline; None for the baseline itself, and where there is no baseline.
    """

    task: str
    language: str
    metric: str
    split: str
    system: System
    runs: dict[int | None, FinishedRun]
    n_examples: int
    score: SeedScores
    is_baseline: bool = False
    comparison: "Comparison | None" = None

    @property
    def sets(self) -> list[EvaluatedSet]:
        return [run.sets[self.language] for run in self.runs.values()]

    @property
    def n_seeds(self) -> int | None:
        """None for a model that was trained with no seed of ours."""
        return None if set(self.runs) == {None} else len(self.runs)


@dataclass(eq=False)
class Comparison:
    """A system compared with its baseline.

    Attributes:
        baseline: the row of the baseline, in the same language and by the same metric.
        difference: of the means over seeds, system minus baseline.
        bootstrap: interval and p-value; None without predictions.
        p_t_test: of the paired t-test, for means over examples.
        p_mcnemar: of McNemar's test, for single runs that are right or wrong.
        p_holm: the bootstrap's p-value, adjusted for all tests of the table.
        cautions: why the difference cannot support a claim, as short phrases.
    """

    baseline: Row
    difference: float
    bootstrap: Bootstrap | None = None
    p_t_test: float | None = None
    p_mcnemar: float | None = None
    p_holm: float | None = None
    cautions: list[str] = field(default_factory=list)

    def mark(self, alpha: float) -> str:
        """`*` for a significant difference, `(*)` for one that is significant but cannot support a claim."""
        if self.p_holm is None or self.p_holm > alpha:
            return ""
        return "(*)" if self.cautions else "*"


@dataclass
class ComparisonTable:
    """All systems, languages and metrics, and what a reader must know about them.

    Attributes:
        rows: sorted by task, metric and language; the baseline before the systems that are compared with it.
        notes: sentences.
        alpha: level of significance.
    """

    rows: list[Row]
    notes: list[str]
    alpha: float


def find_baselines(name: str | None, runs: Sequence[FinishedRun]) -> dict[System, System] | None:
    """The baseline of every system, as `--baseline` names it: the folder of a run, a model, a regime, or both as in the table.

    Returns:
        System → its baseline (the same system where it is the baseline); None if nothing is named.

    Raises:
        InputError: if the name is none of these.
    """
    if name is None:
        return None
    systems = list(dict.fromkeys(run.system for run in runs))
    for run in runs:
        if name == str(run.system) or Path(name).resolve() == Path(run.folder).resolve():
            return dict.fromkeys(systems, run.system)
    if name in (system.regime for system in systems):
        return {system: System(system.model, name) for system in systems}
    if name in (system.model for system in systems):
        return {system: System(name, system.regime) for system in systems}
    known = [
        *dict.fromkeys(system.regime for system in systems),
        *dict.fromkeys(system.model for system in systems),
        *(f'"{system}"' for system in systems),
    ]
    raise InputError(f"--baseline {name} is neither the folder of one of the runs nor one of: {'; '.join(known)}.")


def comparison_table(
    runs: Sequence[FinishedRun],
    baselines: Mapping[System, System] | None = None,
    metrics: Sequence[str] | None = None,
    n_resamples: int = 10_000,
    seed: int = 0,
    alpha: float = 0.05,
) -> ComparisonTable:
    """Compare runs that were measured on the same data.

    Args:
        runs: of any tasks.
        baselines: system → the system that it is compared with; a system that is missing here is a baseline itself.
        metrics: names; by default those of the tasks.
        n_resamples, seed: of the bootstrap.
        alpha: level of significance; intervals cover 1 - alpha.

    Raises:
        InputError: for two runs of the same system with the same seed, or a metric that no run has.
    """
    rows = list(_rows(runs, metrics or _USUAL_METRICS))
    if not rows:
        known = sorted({metric for run in runs for one in run.sets.values() for metric in one.results})
        raise InputError(f"No run has the metric {' or '.join(metrics or ())}; there are {', '.join(known)}.")
    notes = []
    if baselines is None:
        notes.append("Nothing is compared: --baseline names the system that the others are compared with.")
    else:
        notes += _compare_rows(rows, baselines, n_resamples, seed, alpha)
    n_tests = adjust_p_values(row.comparison for row in rows if row.comparison)
    for row in rows:
        comparison = row.comparison
        if comparison and comparison.mark(alpha) and seeds_may_make(row.score, comparison.baseline.score):
            comparison.cautions.append("a difference of less than twice its standard error over seeds")
    rows.sort(key=_order)
    notes += [*_notes_on_tests(n_tests, n_resamples, alpha), *_notes_on_claims(rows), *_notes_on_settings(rows)]
    return ComparisonTable(rows, notes, alpha)


def adjust_p_values(comparisons: Iterable[Comparison]) -> int:
    """Adjust the p-values of several comparisons for their number (Holm); returns how many were tested."""
    tested = [(one, one.bootstrap.p_value) for one in comparisons if one.bootstrap]
    for (one, _), p_value in zip(tested, holm([p_value for _, p_value in tested])):
        one.p_holm = p_value
    return len(tested)


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


def _compare_rows(
    rows: Sequence[Row], baselines: Mapping[System, System], n_resamples: int, seed: int, alpha: float
) -> Iterator[str]:
    """Compare every row with that of its baseline; yields notes on baselines that are missing."""
    by_place = {(row.task, row.language, row.metric, row.system): row for row in rows}
    alone = []
    for row in rows:
        system = baselines.get(row.system, row.system)
        baseline = by_place.get((row.task, row.language, row.metric, system))
        if baseline is None:
            alone.append((row, system))
        elif baseline is row:
            row.is_baseline = True
        else:
            row.comparison = _comparison(row, baseline, n_resamples, seed, 1 - alpha)
    alone.sort(key=lambda one: _order(one[0]))
    for task, of_task in groupby(alone, lambda one: one[0].task):
        found = list(of_task)
        yield (
            f"{TITLES[task]} ({_languages(row for row, _ in found)}): there is no run of "
            f"{_listed(system for _, system in found)}; nothing to compare with: {_listed(row.system for row, _ in found)}."
        )


def _comparison(row: Row, baseline: Row, n_resamples: int, seed: int, level: float) -> Comparison:
    found = Comparison(baseline, row.score.mean - baseline.score.mean)
    seeds = [one.n_seeds for one in (row, baseline) if one.n_seeds is not None]
    n_discordant = None
    if all(row.metric in one.scores for one in (*row.sets, *baseline.sets)):
        scores, others = (np.stack([one.scores[row.metric] for one in some.sets]) for some in (row, baseline))
        if scores.ndim == 3:  # counts by sentence
            found.bootstrap = f1_bootstrap(scores, others, n_resamples, seed, level)
        else:
            found.bootstrap = paired_bootstrap(scores, others, n_resamples, seed, level)
            found.p_t_test = paired_t_test(scores, others) if row.n_examples > 1 else None
            if len(scores) == len(others) == 1 and np.isin([scores, others], (0, 1)).all():
                discordant = discordant_pairs(scores[0], others[0])
                found.p_mcnemar, n_discordant = mcnemar(*discordant), sum(discordant)
    found.cautions = cautions(min(seeds, default=None), row.n_examples, n_discordant)
    return found


def _order(row: Row) -> tuple[Any, ...]:
    metrics = [*_USUAL_METRICS, row.metric]
    task = list(TITLES).index(row.task)
    return task, metrics.index(row.metric), row.metric, row.language, not row.is_baseline, row.system


def _notes_on_tests(n_tests: int, n_resamples: int, alpha: float) -> Iterator[str]:
    if n_tests:
        yield (
            f"`*`: significant, p (Holm) at most {alpha:g}; `(*)`: significant, but it cannot support a claim (see below). p "
            f"and interval by {n_resamples:,} paired bootstrap resamples (of examples; of sentences for F1 of entities and "
            f"accuracy over words), scores averaged over seeds first; p (Holm) is adjusted for all {n_tests} comparisons. They "
            "are about these trained models on other examples of the same kind, not about other seeds."
        )
    if n_tests / (n_resamples + 1) > alpha:
        yield (
            f"With {n_resamples:,} resamples none of {n_tests} comparisons can be significant; give --n_resamples "
            f"{int(10 * n_tests / alpha):,} or more."
        )


def _notes_on_claims(rows: Sequence[Row]) -> Iterator[str]:
    compared = [(row, row.comparison) for row in rows if row.comparison]
    for caution in dict.fromkeys(caution for _, comparison in compared for caution in comparison.cautions):
        for task, of_task in _by_task(row for row, comparison in compared if caution in comparison.cautions):
            yield (
                f"{task} ({_languages(of_task)}): {caution}, which cannot support a claim about the method: "
                f"{_listed(row.system for row in of_task)}."
            )
    for task, of_task in _by_task(row for row, comparison in compared if comparison.bootstrap is None):
        yield f"{task} ({_languages(of_task)}): without predictions of single examples nothing can be tested."


def _notes_on_settings(rows: Sequence[Row]) -> Iterator[str]:
    """Where runs of a system differ in more than the seed, or a system from its baseline in its settings."""
    systems: dict[tuple[str, System], dict[str, FinishedRun]] = {}
    for row in rows:
        systems.setdefault((row.task, row.system), {}).update({run.folder: run for run in row.runs.values()})
    for (_, system), of_system in systems.items():
        first, *others = of_system.values()
        for run in others:
            found = [differing_settings(one, other) for one, other in zip(first.history, run.history)]
            if different := ", ".join(filter(None, found)):
                yield f"Runs of {system} differ in more than the seed: {different} ({first.folder}, {run.folder})."
    pairs = {
        (row.task, row.system, row.comparison.baseline.system): (row, row.comparison.baseline)
        for row in rows
        if row.comparison
    }
    for (_, system, baseline), compared in pairs.items():
        settings = [next(iter(row.runs.values())).settings for row in compared]
        if different := differing_settings(*settings):
            yield f"{system} differs from its baseline {baseline} in: {different}."


def _by_task(rows: Iterable[Row]) -> Iterator[tuple[str, list[Row]]]:
    for task, of_task in groupby(rows, lambda row: row.task):  # rows are sorted by task
        yield TITLES[task], list(of_task)


def _languages(rows: Iterable[Row]) -> str:
    return ", ".join(sorted({row.language for row in rows}))


def _listed(systems: Iterable[System]) -> str:
    return "; ".join(dict.fromkeys(map(str, systems)))
