"""Systems side by side: mean over seeds, difference from a baseline, and whether it is statistically significant."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from utils.core.errors import InputError
from utils.core.progress import progress
from utils.core.result_tables import points
from utils.experiments.evaluated_sets import TITLES
from utils.experiments.finished_runs import FinishedRun, System, differing_evaluation, differing_settings
from utils.experiments.significance import (
    MIN_SEEDS,
    Bootstrap,
    SeedScores,
    StandardError,
    cautions,
    discordant_pairs,
    f1_bootstrap,
    holm,
    mcnemar,
    paired_bootstrap,
    paired_t_test,
    seed_correlation,
    seed_scores,
    with_seeds,
)
from utils.parallel.sides import ENGLISH
from utils.tasks.registry import TASKS


# The metrics of tables, unless the user chooses others.
_USUAL_METRICS = ("accuracy", "f1", "exact_match", "word_retrieval_accuracy")


@dataclass(eq=False)
class Row:
    """A system in one language, by one metric."""

    task: str
    language: str
    metric: str
    split: str
    system: System
    runs: dict[int | None, FinishedRun]  # by seed; None for a model that was not trained by these scripts
    n_examples: int
    score: SeedScores  # 0 to 1
    is_baseline: bool = False  # whether other systems are compared with this one
    comparison: "Comparison | None" = None  # with the baseline; None for the baseline itself, and where there is none
    gap: float | None = (
        None  # transfer gap: the same runs in English, minus this; None for English, or if they have none
    )

    @property
    def adjusted(self) -> set[Any]:
        """The different adjusted models that its runs have come from, by what is known of them; empty if there is none."""
        return {adjustments for run in self.runs.values() if (adjustments := run.adjustments)}

    @property
    def n_seeds(self) -> int | None:
        """None for a model that these scripts did not train, where nothing else was trained either (as in retrieval)."""
        return None if set(self.runs) == {None} and self.task not in TASKS else len(self.runs)


@dataclass(eq=False)
class Comparison:
    """A system compared with its baseline in the same language, by the same metric."""

    baseline: Row
    difference: float  # of the means over seeds, system minus baseline
    bootstrap: Bootstrap | None = None  # None without predictions
    p_t_test: float | None = None  # for means over examples
    p_mcnemar: float | None = None  # for single runs that are right or wrong
    seed_correlation: float = 0.0  # of both systems' scores; 0 for other seeds
    error: StandardError | None = None  # over examples and seeds
    p_seeds: float | None = None  # of examples and seeds; None if neither system has several seeds
    p_holm: float | None = None  # `p_value`, adjusted for all tests of the table
    p_holm_examples: float | None = None  # the same of the bootstrap alone
    cautions: list[str] = field(default_factory=list)  # why the difference cannot support a claim, as short phrases

    @property
    def p_value(self) -> float | None:
        """The larger one of the p-values of examples alone, and of examples and seeds; None without predictions."""
        return max(self.bootstrap.p_value, self.p_seeds or 0.0) if self.bootstrap else None

    def by_seed(self, row: Row) -> tuple[np.ndarray, np.ndarray] | None:
        """The scores of the system in `row` and of the baseline, [seeds] each, if both have the same two seeds or more."""
        both, seeds = (row, self.baseline), set(row.runs)
        if len(seeds) < 2 or seeds != set(self.baseline.runs):
            return None
        scores, others = (
            np.array([one.runs[seed].sets[row.language].results[row.metric] for seed in row.runs]) for one in both
        )
        return scores, others

    def detectable(self, alpha: float, power: float = 0.8) -> float | None:
        """The true difference that a test at level `alpha` would find significant with this power; None without predictions."""
        return self.error.detectable(alpha, power) if self.error else None

    def mark(self, alpha: float) -> str:
        """`*` for a significant difference, `(*)` for one that is so over examples, but cannot support a claim."""
        if self.p_holm is not None and self.p_holm <= alpha:
            return "(*)" if self.cautions else "*"
        return "(*)" if self.p_holm_examples is not None and self.p_holm_examples <= alpha else ""


@dataclass
class ComparisonTable:
    """All systems, languages and metrics, sorted by task, metric and language, the baseline first; and notes in sentences."""

    rows: list[Row]
    notes: list[str]
    alpha: float  # level of significance
    n_resamples: int

    @property
    def compared(self) -> list[tuple[Row, Comparison]]:
        """The rows that are compared with a baseline."""
        return [(row, row.comparison) for row in self.rows if row.comparison]


def find_baselines(name: str | None, runs: Sequence[FinishedRun]) -> dict[System, System] | None:
    """The baseline of every system (of a baseline, itself), as `--baseline` names it; None if nothing is named.

    Raises:
        InputError: if the name is neither the folder of a run nor a model, a regime, or both as in the table.
    """
    if name is None:
        return None
    systems = list(dict.fromkeys(run.system for run in runs))
    for run in runs:
        if name == str(run.system) or Path(name).resolve() == Path(run.folder).resolve():
            return dict.fromkeys(systems, run.system)
    regimes, models = [system.regime for system in systems], [system.model for system in systems]
    if name in regimes:
        return {system: System(system.model, name) for system in systems}
    if name in models:
        return {system: System(name, system.regime) for system in systems}
    known = "; ".join(dict.fromkeys([*regimes, *models, *(f'"{system}"' for system in systems)]))
    raise InputError(f"--baseline {name} is neither the folder of one of the runs nor one of: {known}.")


def comparison_table(runs: Sequence[FinishedRun], *args: Any, **options: Any) -> ComparisonTable:
    """`compare` runs, and `judge` what comes out by itself."""
    table = compare(runs, *args, **options)
    judge([table])
    return table


def compare(
    runs: Sequence[FinishedRun],
    baselines: Mapping[System, System] | None = None,
    metrics: Sequence[str] | None = None,
    n_resamples: int = 10_000,
    seed: int = 0,
    alpha: float = 0.05,
) -> ComparisonTable:
    """Compare runs of any tasks, which were measured on the same data; `judge` says of the tables what is significant.

    Args:
        baselines: system → the system that it is compared with; a system that is missing here is a baseline itself.
        metrics: by default those of the tasks.
        n_resamples, seed: of the bootstrap.
        alpha: level of significance; intervals cover 1 - alpha.

    Raises:
        InputError: for two runs of the same system with the same seed, or a metric that no run has.
    """
    rows = list(_rows(runs, list(dict.fromkeys(metrics or _USUAL_METRICS))))
    if not rows:
        known = sorted({metric for run in runs for one in run.sets.values() for metric in one.results})
        raise InputError(f"No run has the metric {' or '.join(metrics or ())}; there are {', '.join(known)}.")
    notes = list(_measure_gaps(rows))
    if baselines is None:
        notes.append("Nothing is compared: --baseline names the system that the others are compared with.")
    else:
        notes += _compare_rows(rows, baselines, n_resamples, seed, alpha)
    return ComparisonTable(sorted(rows, key=_order), notes, alpha, n_resamples)


def judge(tables: Sequence[ComparisonTable]) -> int:
    """Adjust the p-values of all tables together for their number (Holm), and say what follows: cautions and notes.

    What can be claimed depends on all comparisons that are reported together, so that this comes once, after the last of
    them. Returns how many were tested.
    """
    _count_seeds([pair for table in tables for pair in table.compared])
    tested = [(one, one.bootstrap) for table in tables for _, one in table.compared if one.bootstrap]
    of_all = holm([one.p_value or 0.0 for one, _ in tested])
    of_examples = holm([bootstrap.p_value for _, bootstrap in tested])
    for (one, _), p_value, p_examples in zip(tested, of_all, of_examples):
        one.p_holm, one.p_holm_examples = p_value, p_examples
    for table in tables:
        for row, comparison in table.compared:
            comparison.cautions += _cautions(row, comparison, table.alpha)
        n_tests = len(tested) if any(one.bootstrap for _, one in table.compared) else 0
        table.notes += _notes_on_tests(n_tests, table.n_resamples, table.alpha)
        table.notes += _notes_on_seeds(table.compared)
        table.notes += [*_notes_on_claims(table.compared), *_notes_on_settings(table.rows, table.compared)]
    return len(tested)


def _count_seeds(compared: Sequence[tuple[Row, Comparison]]) -> None:
    """Set the error over examples and seeds, and its p-value; what seeds share is estimated from all comparisons of a task."""
    groups: dict[tuple[str, str], dict[str, list[tuple[np.ndarray, np.ndarray]]]] = {}
    by_seed = [comparison.by_seed(row) for row, comparison in compared]
    for (row, _), pair in zip(compared, by_seed):
        if pair:
            groups.setdefault((row.task, row.metric), {}).setdefault(row.language, []).append(pair)
    correlations = {of: seed_correlation(by_language.values()) for of, by_language in groups.items()}
    for (row, comparison), pair in zip(compared, by_seed):
        scores = row.score, comparison.baseline.score
        if pair:
            comparison.seed_correlation = correlations[row.task, row.metric]
        if comparison.bootstrap:
            comparison.error = with_seeds(comparison.bootstrap.error, *scores, comparison.seed_correlation)
            if any(score.sd is not None for score in scores):
                comparison.p_seeds = comparison.error.p_value(comparison.difference)


def _cautions(row: Row, comparison: Comparison, alpha: float) -> Iterator[str]:
    both = (row, comparison.baseline)
    if any(run.at_chance for one in both for run in one.runs.values()):
        yield "a run that has not learned its task (at chance in the training language)"
    if comparison.mark(alpha) and (comparison.p_holm or 0) > alpha:
        yield "significant over examples, but not over examples and seeds"
    adjusted = [one.adjusted for one in both]
    # (Of the same adjusted models, nothing is said of the adjustment.)
    if adjusted[0] != adjusted[1] and any(
        0 < len(found) < min(MIN_SEEDS, len(one.runs)) for found, one in zip(adjusted, both)
    ):
        yield f"fewer than {MIN_SEEDS} adjusted models, whatever the number of seeds of the fine-tuning"


def _rows(runs: Sequence[FinishedRun], metrics: Sequence[str]) -> Iterator[Row]:
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


def _measure_gaps(rows: Sequence[Row]) -> Iterator[str]:
    """Set the transfer gap of every row; yields notes that rank the languages of every system by it."""
    in_english = {(row.task, row.metric, row.system): row for row in rows if row.language == ENGLISH}
    ranked: dict[tuple[str, str], dict[System, list[Row]]] = {}
    for row in rows:
        english = in_english.get((row.task, row.metric, row.system))
        if english and english is not row and english.runs.keys() == row.runs.keys():
            row.gap = english.score.mean - row.score.mean
            ranked.setdefault((row.task, row.metric), {}).setdefault(row.system, []).append(row)
    for (task, metric), systems in ranked.items():
        several = [(system, found) for system, found in sorted(systems.items()) if len(found) > 1]
        listed = "; ".join(f"{system}: {_by_gap(found)}" for system, found in several)
        if listed:
            yield f"{TITLES[task]}, transfer gap (English minus language, {metric}), the largest first: {listed}."


def _by_gap(rows: Sequence[Row]) -> str:
    gaps = sorted((-(row.gap or 0), row.language) for row in rows)
    return ", ".join(f"{language} {points(-gap, sign=False)}" for gap, language in gaps)


def _compare_rows(
    rows: Sequence[Row], baselines: Mapping[System, System], n_resamples: int, seed: int, alpha: float
) -> Iterator[str]:
    """Compare every row with that of its baseline; yields notes on baselines that are missing."""
    by_place = {(row.task, row.language, row.metric, row.system): row for row in rows}
    alone = []
    for row in progress(rows, "Comparing with the baseline", leave=False):
        baseline = by_place.get((row.task, row.language, row.metric, baselines.get(row.system, row.system)))
        if baseline is None:
            alone.append(row)
        elif baseline is row:
            row.is_baseline = True
        else:
            row.comparison = _comparison(row, baseline, n_resamples, seed, 1 - alpha)
    for place, found in _by_task(sorted(alone, key=_order)):
        missing = _listed(baselines[row.system] for row in found)
        compared = _listed(row.system for row in found)
        yield f"{place}: there is no run of {missing}; nothing to compare with: {compared}."


def _comparison(row: Row, baseline: Row, n_resamples: int, seed: int, level: float) -> Comparison:
    found = Comparison(baseline, row.score.mean - baseline.score.mean)
    n_discordant = None
    sets = [[run.sets[row.language] for run in one.runs.values()] for one in (row, baseline)]
    if all(row.metric in one.scores for of_system in sets for one in of_system):
        scores, others = (np.stack([one.scores[row.metric] for one in of_system]) for of_system in sets)
        if scores.ndim == 3:  # counts by sentence
            found.bootstrap = f1_bootstrap(scores, others, n_resamples, seed, level)
        else:
            found.bootstrap = paired_bootstrap(scores, others, n_resamples, seed, level)
            found.p_t_test = paired_t_test(scores, others) if row.n_examples > 1 else None
            if len(scores) == len(others) == 1 and np.isin([scores, others], (0, 1)).all():
                discordant = discordant_pairs(scores[0], others[0])
                found.p_mcnemar, n_discordant = mcnemar(*discordant), sum(discordant)
    n_seeds = min((one.n_seeds for one in (row, baseline) if one.n_seeds is not None), default=None)
    found.cautions = cautions(n_seeds, row.n_examples, n_discordant)
    return found


def _order(row: Row) -> tuple[Any, ...]:
    metrics = [*_USUAL_METRICS, row.metric]
    task = list(TITLES).index(row.task)
    return task, metrics.index(row.metric), row.metric, row.language, not row.is_baseline, row.system


def _notes_on_tests(n_tests: int, n_resamples: int, alpha: float) -> Iterator[str]:
    if n_tests:
        yield (
            f"`*`: significant, p (Holm) at most {alpha:g}; `(*)`: significant over examples, but it cannot support a claim (see "
            f"below). p and interval by {n_resamples:,} paired bootstrap resamples (of examples; of sentences for F1 of entities and "
            "accuracy over words), scores averaged over seeds first: about these trained models on other examples. p (seeds) also counts "
            f"how the scores vary over seeds; p (Holm) is the larger one of both, adjusted for all {n_tests} comparisons."
        )
    if too_few := note_on_resamples(n_tests, n_resamples, alpha):
        yield too_few


def _notes_on_seeds(compared: Sequence[tuple[Row, Comparison]]) -> Iterator[str]:
    found = {(row.task, row.metric): one.seed_correlation for row, one in compared if one.seed_correlation}
    for (task, metric), correlation in found.items():
        yield (
            f"{TITLES[task]}, {metric}: with the same seed, the scores of two systems go together (correlation over seeds "
            f"{correlation:.2f}, estimated over all languages, less a standard error), and p (seeds) counts that."
        )


def note_on_resamples(n_tests: int, n_resamples: int, alpha: float) -> str:
    """How many resamples are needed for a significant difference, if there are too few; otherwise empty."""
    if n_tests / (n_resamples + 1) <= alpha:
        return ""
    return (
        f"With {n_resamples:,} resamples none of {n_tests} comparisons can be significant; give --n_resamples "
        f"{int(10 * n_tests / alpha):,} or more."
    )


def _notes_on_claims(compared: Sequence[tuple[Row, Comparison]]) -> Iterator[str]:
    for caution in dict.fromkeys(caution for _, comparison in compared for caution in comparison.cautions):
        for place, of_task in _by_task(row for row, comparison in compared if caution in comparison.cautions):
            systems = _listed(row.system for row in of_task)
            yield f"{place}: {caution}, which cannot support a claim about the method: {systems}."
    for place, _ in _by_task(row for row, comparison in compared if comparison.bootstrap is None):
        yield f"{place}: without predictions of single examples nothing can be tested."


def _notes_on_settings(rows: Sequence[Row], compared: Sequence[tuple[Row, Comparison]]) -> Iterator[str]:
    """Where runs of a system differ in more than the seed, or a system from its baseline in its settings."""
    systems: dict[tuple[str, System], dict[str, FinishedRun]] = {}
    for row in rows:
        systems.setdefault((row.task, row.system), {}).update({run.folder: run for run in row.runs.values()})
    for (_, system), of_system in systems.items():
        first, *others = of_system.values()
        for run in others:
            found = [differing_settings(one, other) for one, other in zip(first.history, run.history)]
            if different := ", ".join(filter(None, [*found, differing_evaluation(first, run)])):
                yield f"Runs of {system} differ in more than the seed: {different} ({first.folder}, {run.folder})."
    pairs = {(row.task, row.system): (row, comparison.baseline) for row, comparison in compared}
    for row, baseline in pairs.values():
        both = [next(iter(one.runs.values())) for one in (row, baseline)]
        if different := differing_settings(*(run.settings for run in both)):
            yield f"{row.system} differs from its baseline {baseline.system} in: {different}."
        if different := differing_evaluation(*both):
            yield f"{row.system} was not measured as its baseline {baseline.system}: {different}."


def _by_task(rows: Iterable[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Rows, which are sorted by task: title of the task with the languages, and rows of the task."""
    for task, of_task in groupby(rows, lambda row: row.task):
        found = list(of_task)
        yield f"{TITLES[task]} ({', '.join(sorted({row.language for row in found}))})", found


def _listed(systems: Iterable[System]) -> str:
    return "; ".join(dict.fromkeys(map(str, systems)))
