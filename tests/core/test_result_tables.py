"""One table as text, Markdown, LaTeX and CSV."""

import csv
import io
import re

import markdown
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.core.result_tables import ResultTable, points


TABLE = ResultTable(["model", "F1 %", "n"], [["a_b", "81.5 ± 0.3", None], ["long name|x", "−2.0*", 12]])


def test_text():
    assert TABLE.text().splitlines() == [
        "model              F1 %   n",
        "a_b          81.5 ± 0.3   –",
        "long name|x       −2.0*  12",
    ]


def test_markdown():
    assert TABLE.markdown().splitlines() == [
        "| model        |       F1 % |    n |",
        "| ------------ | ---------: | ---: |",
        "| a_b          | 81.5 ± 0.3 |    – |",
        r"| long name\|x |      −2.0* |   12 |",
    ]


def test_latex():
    lines = TABLE.latex("Table of 100 %").splitlines()
    assert lines[2:4] == [r"\caption{Table of 100 \%}", r"\begin{tabular}{lrr}"]
    assert r"a\_b & 81.5 $\pm$ 0.3 & -- \\" in lines
    assert r"long name|x & $-$2.0$^{*}$ & 12 \\" in lines
    assert lines[-1] == r"\end{table}"


def test_csv_has_the_values_in_full():
    table = ResultTable(["name", "mean", "p"], [["a, b", 1 / 3, None]])
    assert table.csv() == 'name,mean,p\n"a, b",0.3333333333333333,\n'


def test_columns_without_any_value_can_be_dropped():
    table = ResultTable(["a", "b", "c", "d"], [["x", None, 1, None], ["y", None, None, None]], n_text_columns=2)
    kept = table.without_empty_columns()
    assert (kept.columns, kept.rows, kept.n_text_columns) == (["a", "c"], [["x", 1], ["y", None]], 1)


HOSTILE = ("<script>alert(1)</script>", "a\nb\r\nc", "x | y", "<!-- ", "</td><b onload=x>", "`<img src=x>`", "a" * 300)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_break_no_markdown_table(name):
    lines = ResultTable([name, "n"], [[name, 1], ["other", 2]]).markdown().split("\n")
    assert len(lines) == 4
    page = markdown.markdown("\n".join(lines), extensions=["tables"])
    assert (page.count("<tr>"), page.count("<td"), page.count("<th")) == (3, 4, 3)  # (`<thead>` is the third)
    assert set(re.findall(r"<(\w+)", page)) <= {"table", "thead", "tbody", "tr", "th", "td", "code"}


@pytest.mark.parametrize("name", ["=1+1", "+1+1", "-1+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1", "-x", "--a"])
def test_no_name_is_a_formula(name):
    ((column, _), (cell, value)) = csv.reader(io.StringIO(ResultTable([name, "n"], [[name, -1.5]]).csv()))
    assert cell == column == f"'{name.strip()}"
    assert float(value) == -1.5


@pytest.mark.parametrize("number", ["-1", "-1.5", "+0.3", "-.5", "-2e-05", "1", "", "a-b"])
def test_numbers_and_other_text_stay(number):
    assert ResultTable(["n", "m"], [[number, 1]]).csv() == f"n,m\n{number},1\n"


@given(st.floats(-1, 1))
def test_points(difference):
    signed, plain = points(difference), points(difference, sign=False)
    assert signed.removeprefix("+") == plain
    assert float(plain.replace("−", "-")) == pytest.approx(100 * difference, abs=0.05 + 1e-9)
    assert plain[0] != "-"
    assert (signed[0] in "+−") == (plain != "0.0")
