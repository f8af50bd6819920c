"""Comparisons as Markdown, LaTeX and CSV."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from utils.experiments.comparison import Comparison, Row
from utils.experiments.finished_runs import TASK_NAMES


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
