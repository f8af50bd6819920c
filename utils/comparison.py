"""Finished runs side by side: mean over seeds, difference from a baseline, and whether it is more than chance."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import InputError
from utils.finished_runs import TASK_NAMES, EvaluatedSet, FinishedRun, System, differing_settings
from utils.significance import (
    Bootstrap,
    Spread,
    cautions,
    discordant_pairs,
    f1_bootstrap,
    holm,
    mcnemar,
    paired_bootstrap,
    paired_t_test,
    seeds_may_make,
    spread,
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
    score: Spread
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


# --- Comparing ---------------------------------------------------------------------------------------------------


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
                score = spread([one.results[metric] for one in sets])
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


# --- What must be known to read the table ------------------------------------------------------------------------


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


# --- Writing -----------------------------------------------------------------------------------------------------


_COLUMNS = (
    "language", "model", "regime", "seeds", "mean ± sd", "difference", "interval", "p", "p (Holm)", "t-test", "McNemar",
)  # fmt: skip
# The first of them are text, and flush left.
_LEFT = 3
_NOTHING = "–"
_METRIC_NAMES = {"f1": "F1", "mrr": "mean reciprocal rank"}


def as_markdown(comparison: Comparison) -> str:
    """The table in Markdown: a section for every task and metric, and the notes."""
    lines = []
    for title, rows in _sections(comparison):
        cells = _table(comparison, rows)
        widths = [max(3, *(len(line[k]) for line in cells)) for k in range(len(cells[0]))]
        rule = [("-" * width if k < _LEFT else "-" * (width - 1) + ":") for k, width in enumerate(widths)]
        lines += [f"## {title}", ""]
        for line in (cells[0], rule, *cells[1:]):
            padded = [c.ljust(w) if k < _LEFT else c.rjust(w) for k, (c, w) in enumerate(zip(line, widths))]
            lines.append(f"| {' | '.join(padded)} |")
        lines.append("")
    return "\n".join([*lines, *(f"- {note}" for note in comparison.notes), ""])


def as_latex(comparison: Comparison) -> str:
    r"""The table in LaTeX: a `table` for every task and metric (needs `booktabs`), the notes as comments."""
    lines = [f"% {note}" for note in comparison.notes]
    for title, rows in _sections(comparison):
        cells = _table(comparison, rows)
        body = [" & ".join(map(_in_latex, line)) + r" \\" for line in cells]
        lines += [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_in_latex(title)}}}",
            rf"\begin{{tabular}}{{{'l' * _LEFT}{'r' * (len(cells[0]) - _LEFT)}}}",
            r"\toprule",
            body[0],
            r"\midrule",
            *body[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    return "\n".join([*lines, ""])


def as_csv(comparison: Comparison) -> str:
    """The table as CSV, for programs: a line per row, shares from 0 to 1 and p-values in full, empty where there is none."""
    file = io.StringIO()
    lines = [_values(comparison, row) for row in comparison.rows]
    writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def _values(comparison: Comparison, row: Row) -> dict[str, Any]:
    bootstrap = row.bootstrap
    return {
        "task": row.task,
        "language": row.language,
        "metric": row.metric,
        "split": row.split,
        "model": row.system.model,
        "regime": row.system.regime,
        "seeds": " ".join(str(seed) for seed in sorted(row.runs, key=str) if seed is not None),
        "runs": len(row.runs),
        "examples": row.n_examples,
        "mean": row.score.mean,
        "sd": row.score.sd,
        "baseline": row.baseline and row.baseline.system,
        "difference": row.difference,
        "low": bootstrap and bootstrap.low,
        "high": bootstrap and bootstrap.high,
        "p_bootstrap": bootstrap and bootstrap.p_value,
        "p_holm": row.p_holm,
        "p_t_test": row.p_t_test,
        "p_mcnemar": row.p_mcnemar,
        "mark": comparison.mark(row),
        "cautions": "; ".join(row.cautions),
    }


def _sections(comparison: Comparison) -> Iterator[tuple[str, list[Row]]]:
    for (task, metric), rows in groupby(comparison.rows, lambda row: (row.task, row.metric)):
        yield f"{TASK_NAMES[task]}: {_METRIC_NAMES.get(metric, metric.replace('_', ' '))} (%)", list(rows)


def _table(comparison: Comparison, rows: Sequence[Row]) -> list[list[str]]:
    """Header and rows of a section, without columns that have nothing to say."""
    lines = [_cells(comparison, row) for row in rows]
    kept = [k for k in range(len(_COLUMNS)) if any(line[k] != _NOTHING for line in lines)]
    header = [f"{100 * (1 - comparison.alpha):g} % {name}" if name == "interval" else name for name in _COLUMNS]
    return [[line[k] for k in kept] for line in (header, *lines)]


def _cells(comparison: Comparison, row: Row) -> list[str]:
    """A row as the table shows it, in per cent."""
    sd = f" ± {100 * row.score.sd:.1f}" if row.score.sd is not None else ""
    difference, interval = "baseline" if row.is_baseline else _NOTHING, _NOTHING
    if row.difference is not None:
        difference = points(row.difference)
    if row.bootstrap:
        interval = f"[{points(row.bootstrap.low)}, {points(row.bootstrap.high)}]"
    return [
        row.language,
        *row.system,
        _NOTHING if row.n_seeds is None else str(row.n_seeds),
        f"{100 * row.score.mean:.1f}{sd}",
        f"{difference} {comparison.mark(row)}".strip(),
        interval,
        _p(row.bootstrap and row.bootstrap.p_value),
        _p(row.p_holm),
        _p(row.p_t_test),
        _p(row.p_mcnemar),
    ]


def points(difference: float) -> str:
    """A difference of shares in points, with its sign: `+1.5`, `−0.3`, `0.0`."""
    written = f"{100 * difference:+.1f}"
    return "0.0" if written in ("+0.0", "-0.0") else written.replace("-", "−")


def _p(value: float | None) -> str:
    if value is None:
        return _NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


_LATEX: Mapping[str, str] = {
    **{sign: rf"\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "–": "--", "−": "$-$", "<": "$<$", "*": "$^{*}$",
}  # fmt: skip


def _in_latex(text: str) -> str:
    """A cell with what LaTeX would take for commands written out."""
    return "".join(_LATEX.get(sign, sign) for sign in text)
