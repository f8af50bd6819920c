"""One table as text, Markdown, LaTeX and CSV."""

from utils.core.result_tables import ResultTable


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
