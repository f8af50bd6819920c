"""A table of results, and its text for the terminal, as Markdown, LaTeX and CSV."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


# Shown where there is no value.
MISSING = "–"
# The beginning of an HTML tag, comment or declaration.
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_LATEX = {
    **{sign: rf"\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "–": "--", "−": "$-$", "<": "$<$", "*": "$^{*}$",
}  # fmt: skip


@dataclass
class ResultTable:
    """Rows of values under named columns. Format numbers first, except for `csv`; None is a missing value."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    n_text_columns: int = 1  # the first columns, aligned to the left; the others to the right

    def without_empty_columns(self) -> "ResultTable":
        """The same table without the columns in which every value is missing."""
        kept = [k for k in range(len(self.columns)) if any(row[k] is not None for row in self.rows)]
        rows = [[row[k] for k in kept] for row in self.rows]
        return ResultTable([self.columns[k] for k in kept], rows, sum(k < self.n_text_columns for k in kept))

    def text(self) -> str:
        """For the terminal: columns two spaces apart."""
        return "\n".join("  ".join(line).rstrip() for line in _aligned(self._lines(), self.n_text_columns))

    def markdown(self) -> str:
        header, *rows = ([markdown_text(cell).replace("|", r"\|") for cell in line] for line in self._lines())
        rule = ["---" if k < self.n_text_columns else "---:" for k in range(len(self.columns))]
        lines = _aligned([header, rule, *rows], self.n_text_columns)
        lines[1] = [cell.replace(" ", "-") for cell in lines[1]]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def latex(self, caption: str) -> str:
        r"""A `table` environment (needs the package `booktabs`); special characters are escaped."""
        header, *rows = (" & ".join(map(_in_latex, line)) + r" \\" for line in self._lines())
        alignment = "l" * self.n_text_columns + "r" * (len(self.columns) - self.n_text_columns)
        begin = [r"\begin{table}", r"\centering", rf"\caption{{{_in_latex(caption)}}}"]
        body = [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", header, r"\midrule", *rows, r"\bottomrule"]
        return "\n".join([*begin, *body, r"\end{tabular}", r"\end{table}"])

    def csv(self) -> str:
        """For programs: values in full, empty where one is missing. No text is a formula for a spreadsheet."""
        file = io.StringIO()
        lines = ([_no_formula(cell) for cell in line] for line in (self.columns, *self.rows))
        csv.writer(file, lineterminator="\n").writerows(lines)
        return file.getvalue()

    def _lines(self) -> list[list[str]]:
        return [[MISSING if cell is None else str(cell) for cell in line] for line in (self.columns, *self.rows)]


def markdown_text(text: str) -> str:
    """One line of text in which Markdown sees no HTML, not even inside of a code span."""
    return _TAG.sub("&lt;", " ".join(text.split()))


def _no_formula(cell: Any) -> Any:  # noqa: ANN401
    """Text in one line; a spreadsheet calculates what begins like a formula, unless there is an apostrophe before it."""
    if not isinstance(cell, str):
        return cell
    line = " ".join(cell.split())
    return f"'{line}" if line[:1] in tuple("=+-@") and not _NUMBER.fullmatch(line) else line


def points(difference: float, sign: bool = True) -> str:
    """A difference between two scores of 0 to 1 in percentage points, `+1.5`, `−0.3`, `0.0`; or without plus, `1.5`."""
    written = f"{100 * difference:{'+' * sign}.1f}"
    return "0.0" if float(written) == 0 else written.replace("-", "−")


def shorten(text: str, width: int) -> str:
    """The text, or its beginning and its end around an ellipsis, if it is longer than `width` characters."""
    half = width // 2
    return text if len(text) <= width else f"{text[:half]}…{text[len(text) - width + half + 1 :]}"


def _aligned(lines: Sequence[Sequence[str]], n_text_columns: int) -> list[list[str]]:
    widths = [max(map(len, column)) for column in zip(*lines)]
    return [
        [cell.ljust(w) if k < n_text_columns else cell.rjust(w) for k, (cell, w) in enumerate(zip(line, widths))]
        for line in lines
    ]


def _in_latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)
