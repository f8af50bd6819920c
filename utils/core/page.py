"""Pages for the browser: one HTML file that needs no server, no connection and no other file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from utils.core.charts import Lines, as_svg, describe_lines, line_chart
from utils.core.files import json_text
from utils.core.result_tables import MISSING, ResultTable


_TEMPLATES = Path(__file__).with_name("page_template")


def html_page(title: str, body: str, style: str = "", scripts: str = "") -> str:
    """A page in the style that all pages share, light or dark as the browser is set.

    It may load nothing, and runs no script but the given ones.

    Args:
        body: HTML, in which everything that comes from data is escaped.
        style: CSS rules besides the common ones.
        scripts: JavaScript that is run after the body.
    """
    common = (_TEMPLATES / "page.css").read_text(encoding="utf-8")
    return fill("page.html", title=title, body=body, style=f"{common}{style}".strip(), scripts=scripts)


def fill(template: str, **values: Any) -> str:
    """A template of `page_template/` with values in it, which are escaped."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )


@dataclass(frozen=True)
class Chart:
    """A figure, drawn when it is needed; `alt` says in words what it shows."""

    title: str
    draw: Callable[[], Any]
    alt: str


@dataclass(frozen=True)
class Table:
    """A table with its caption; `folded`: shown on demand; `wide`: in the full width of the page, for sentences."""

    caption: str
    content: ResultTable
    folded: bool = False
    wide: bool = False


def lines_chart(title: str, lines: Lines, x_label: str, y_label: str, log: bool = False) -> Chart:
    """A chart of `line_chart`."""
    return Chart(title, partial(line_chart, lines, x_label, y_label, log), describe_lines(lines, x_label))


def lines_table(caption: str, lines: Lines, x_label: str, number: str = ".4g") -> Table:
    """A row for each x, a column for each line with its numbers in this format; folded if it is long."""
    places = sorted({x for line in lines.values() for x in line})
    rows = [[f"{x:g}", *(format(line[x], number) if x in line else None for line in lines.values())] for x in places]
    return Table(caption, ResultTable([x_label, *lines], rows), folded=len(rows) > 8)


@dataclass(frozen=True)
class Section:
    """A part of a report. Every number of its charts is also in one of its tables."""

    title: str
    notes: Sequence[str] = ()
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()


def report_page(
    title: str,
    facts: ResultTable,
    sections: Sequence[Section],
    record: Mapping[str, Any],
    warnings: Sequence[str] = (),
) -> str:
    """The report of a run: what it was, sections, and its whole record."""
    body = fill(
        "report.html",
        title=title,
        facts=facts,
        sections=sections,
        svg=as_svg,
        warnings=warnings,
        missing=MISSING,
        record=json_text(record, indent=2, sort_keys=True),
    )
    style = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    return html_page(title, body, style)
