"""The page of a report: everything in it is shown, nothing of it runs, and nothing is loaded."""

import re
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.pages import Page
from utils.core.charts import as_svg, describe_dots, describe_lines, dot_chart, line_chart
from utils.core.page import Chart, Section, Table, html_page, report_page
from utils.core.result_tables import MISSING, ResultTable


HOSTILE = [
    "</td></table><script>document.title='owned'</script>", "<img src=https://example.org/x onerror=alert(1)>", "<!--",
    "]]>", "{{ title }}", "{% for %}", "&lt;", '" onmouseover="x', "نهر هادئ", "नदी", "\u2028", "a\nb", "", "$x$",
]  # fmt: skip
# (A page can hold no other control characters.)
TEXTS = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
LINES = {"one": {0: 0.5, 10: 0.25}, "$other_": {0: 1.0, 5: 2.0, 10: 3.0}}
DOTS = {"before": {"hi": [50.0]}, "after": {"hi": [60.0, 55.0, 65.0], "<ru>": [70.0, 69.0, 71.0]}}


def a_page(rows, **parts):
    table = Table("numbers", ResultTable(["name", "text", "n"], rows, 2), **parts)
    return report_page(
        "A <title>", ResultTable(["", ""], [["Seed", 1]], 2), [Section("All", tables=[table])], {"k": 1}
    )


@given(st.lists(st.tuples(TEXTS, TEXTS, st.none() | st.floats(allow_nan=False) | st.integers())), st.booleans())
def test_every_cell_is_shown_and_nothing_runs(rows, folded):
    page = Page(a_page(rows, folded=folded, wide=not folded))
    shown = [[MISSING if cell is None else str(cell) for cell in row] for row in rows]
    assert page.cells[-len(rows) :] == shown or not rows
    assert page.scripts == 0
    assert page.references == []


@given(TEXTS, TEXTS)
def test_titles_notes_and_warnings_are_text(one, other):
    table = Table(other, ResultTable([one, other], [[1, 2]]))
    section = Section(one, [other], tables=[table])
    text = report_page(one, ResultTable(["", ""], [[one, other]], 2), [section], {one: other}, [other])
    page = Page(text)
    assert (page.scripts, page.references) == (0, [])
    assert one in "".join(page.texts)
    assert other in page.labels


@pytest.mark.usefixtures("figures")
def test_charts_are_part_of_the_page():
    charts = [
        Chart("lines", partial(line_chart, LINES, "Step", "Loss", log), describe_lines(LINES, "Step"))
        for log in (True, False)
    ]
    charts.append(Chart("dots", partial(dot_chart, DOTS, "%", True), describe_dots(DOTS)))
    text = report_page("x", ResultTable(["", ""], [["Seed", 1]], 2), [Section("All", charts=[*charts, *charts])], {})
    page = Page(text)  # (identifiers differ)
    assert text.count("<svg") == len(page.labels) == 6
    assert page.references == []
    assert not re.search(r"https?://", text)
    assert {"Step", "Loss", "<ru>", "after"} <= {one.strip() for one in page.texts}
    for number in ("50.0", "55.0 to 65.0", "69.0 to 71.0"):
        assert number in page.labels[2]
    for number in ("0.5 at 0", "0.25 at 10", "1 at 0", "3 at 10"):
        assert number in page.labels[0]


@pytest.mark.usefixtures("figures")
def test_a_chart_is_the_same_every_time_and_takes_its_colors_from_the_page():
    one, same, other = (as_svg(partial(line_chart, LINES, "Step", "Loss"), salt) for salt in ("1.1", "1.1", "1.2"))
    assert one == same != other
    assert "currentcolor" in one
    assert not {"#000000", "#ffffff", "#dddddd"} & set(re.findall("#[0-9a-f]{6}", one))


def test_only_given_scripts_run():
    assert "script-src" not in html_page("t", "<p>x</p>")
    page = html_page("<t>", "<p>x</p>", "p { color: red }", "let x = 1 < 2;")
    assert "script-src 'unsafe-inline'" in page
    assert "let x = 1 < 2;" in page
    assert "&lt;t&gt;" in page
    assert "default-src 'none'" in page
