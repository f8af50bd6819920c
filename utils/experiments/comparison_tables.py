"""Comparisons as Markdown, LaTeX and CSV."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from utils.core.files import write_text
from utils.core.result_tables import ResultTable, points
from utils.experiments.comparison import ComparisonTable, Row
from utils.experiments.evaluated_sets import TITLES
from utils.experiments.significance import SeedScores


def write_tables(tables: Sequence[ComparisonTable], folder: Path) -> str:
    """Write `comparison.md`, `comparison.csv` and `comparison.tex`; returns the first one's text."""
    text = "\n".join(map(as_markdown, tables))
    write_text(folder / "comparison.md", text)
    write_text(folder / "comparison.tex", "\n".join(map(as_latex, tables)))
    # (For programs: one line per row, scores from 0 to 1 and p-values in full, empty where there is none.)
    lines = [_values(table, row) for table in tables for row in table.rows]
    write_text(folder / "comparison.csv", ResultTable(list(lines[0]), [list(line.values()) for line in lines]).csv())
    return text


def as_markdown(table: ComparisonTable) -> str:
    """In Markdown: a section for every task and metric, and the notes."""
    sections = [f"## {title}\n\n{section.markdown()}\n" for title, section in _sections(table)]
    return "\n".join([*sections, *(f"- {note}" for note in table.notes), ""])


def as_latex(table: ComparisonTable) -> str:
    r"""In LaTeX: a `table` for every task and metric (needs `booktabs`), the notes as comments."""
    sections = [section.latex(caption=title) for title, section in _sections(table)]
    return "\n".join([*(f"% {note}" for note in table.notes), *sections, ""])


def _values(table: ComparisonTable, row: Row) -> dict[str, Any]:
    comparison = row.comparison
    bootstrap = comparison and comparison.bootstrap
    baseline = comparison.baseline.system if comparison else row.system if row.is_baseline else None
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
        "gap": row.gap,
        "baseline": baseline,
        "difference": comparison and comparison.difference,
        "low": bootstrap and bootstrap.low,
        "high": bootstrap and bootstrap.high,
        "p_bootstrap": bootstrap and bootstrap.p_value,
        "p_seeds": comparison and comparison.p_seeds,
        "p_holm": comparison and comparison.p_holm,
        "p_holm_examples": comparison and comparison.p_holm_examples,
        "p_t_test": comparison and comparison.p_t_test,
        "p_mcnemar": comparison and comparison.p_mcnemar,
        "mark": comparison.mark(table.alpha) if comparison else "",
        "cautions": "; ".join(comparison.cautions) if comparison else "",
    }


def metric_name(metric: str) -> str:
    """A metric as titles write it."""
    return {"f1": "F1", "mrr": "mean reciprocal rank"}.get(metric, metric.replace("_", " "))


def _sections(table: ComparisonTable) -> Iterator[tuple[str, ResultTable]]:
    """Title and table of every task and metric, in percent, without columns in which all values are missing."""
    columns = ["language", "model", "regime", "seeds", "mean ± sd", "gap", "difference"]
    columns += [f"{100 * (1 - table.alpha):g} % interval", "p", "p (seeds)", "p (Holm)", "t-test", "McNemar"]
    for (task, metric), rows in groupby(table.rows, lambda row: (row.task, row.metric)):
        cells = ResultTable(columns, [_cells(table, row) for row in rows], n_text_columns=3)
        yield f"{TITLES[task]}: {metric_name(metric)} (%)", cells.without_empty_columns()


def _cells(table: ComparisonTable, row: Row) -> list[Any]:
    cells = [
        row.language,
        *row.system,
        row.n_seeds,
        mean_and_sd(row.score),
        None if row.gap is None else points(row.gap, sign=False),
    ]
    if (comparison := row.comparison) is None:
        return [*cells, "baseline" if row.is_baseline else None, *[None] * 6]
    bootstrap = comparison.bootstrap
    difference = f"{points(comparison.difference)} {comparison.mark(table.alpha)}".strip()
    interval = f"[{points(bootstrap.low)}, {points(bootstrap.high)}]" if bootstrap else None
    p_value = bootstrap.p_value if bootstrap else None
    p_values = (p_value, comparison.p_seeds, comparison.p_holm, comparison.p_t_test, comparison.p_mcnemar)
    return [*cells, difference, interval, *map(_p, p_values)]


def mean_and_sd(score: SeedScores) -> str:
    """In percent: `72.4 ± 0.3`, or without sd for a single seed."""
    return f"{100 * score.mean:.1f}" + ("" if score.sd is None else f" ± {100 * score.sd:.1f}")


def _p(value: float | None) -> str | None:
    return None if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
