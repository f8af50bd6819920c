"""Word links of several models: what changed, how they agree with given links, and the page that shows them."""

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from utils.evaluation.link_page import link_page, pack, page_data, write_link_page
from utils.evaluation.word_links import ModelLinks, ViewedPairs, changes, summarize, summary_table


HOSTILE = [
    "</script><script>document.title='owned'</script>", "<img src=x onerror=alert(1)>", "<!--", "]]>", "[[data]]", "$&",
    "\u2028", '"', "\\u003c", "नदी", "نهر", "\ud800",
]  # fmt: skip
PAIRS = ViewedPairs(
    "hi", "en", [1, 4], [["a", "b", "c"], HOSTILE], [["A", "B"], ["one", "</SCRIPT >"]], [[(0, 0), (1, 1)], [(9, 0)]]
)
BEFORE = ModelLinks(
    "before", 1, [{(0, 0): 0.5, (2, 1): 0.123456}, {(9, 0): 1.0}], [np.array([[0.5, 0], [-0.25, np.nan], [0, 1]])]
)
AFTER = ModelLinks("after", 1, [{(0, 0): 0.75, (1, 1): 0.25}, {(9, 0): 0.5}], [np.zeros((3, 2), np.float32)])
MODELS = [BEFORE, AFTER]


class Scripts(HTMLParser):
    """The scripts of a page by their type, as a browser finds them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str | None, str]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "script":
            self.found.append((dict(attrs).get("type"), ""))

    def handle_data(self, data):
        if self.cdata_elem == "script":
            kind, text = self.found[-1]
            self.found[-1] = kind, text + data


@pytest.fixture
def data() -> dict:
    return page_data(PAIRS, MODELS, summarize(PAIRS, MODELS), {"git_commit": "</script>"})


def test_what_changed():
    assert changes(BEFORE.links[0], AFTER.links[0]) == ([(1, 1)], [(2, 1)])
    assert changes(BEFORE.links[1], AFTER.links[1]) == ([], [])


def test_the_first_model_is_what_others_are_compared_with():
    before, after = summarize(PAIRS, MODELS)
    assert (before.links, before.changed_pairs, before.added, before.removed) == (3, None, None, None)
    assert (after.links, after.changed_pairs, after.added, after.removed) == (3, 1, 1, 1)
    assert after.mean_similarity == pytest.approx(0.5)
    assert (before.precision, before.recall, before.error_rate) == pytest.approx((2 / 3, 2 / 3, 1 / 3))
    assert (after.precision, after.recall, after.error_rate) == pytest.approx((1, 1, 0))


def test_without_links_and_without_gold_links_there_is_nothing_to_average():
    pairs = ViewedPairs("hi", "en", [1], [["a"]], [["b"]])
    summaries = summarize(pairs, [ModelLinks("m", 0, [{}])])
    assert summaries[0].links == 0
    assert {summaries[0].mean_similarity, summaries[0].precision, summaries[0].error_rate} == {None}
    assert summary_table([ModelLinks("m", 0, [{}])], summaries).columns == ["model", "layer", "links"]


def test_the_page_has_every_link_with_its_score(data):
    first, second = data["pairs"]
    assert (first["n"], second["n"]) == (1, 4)
    assert first["m"] == [[0, 0, 0.5, 2, 1, 0.1235], [0, 0, 0.75, 1, 1, 0.25]]
    assert (first["g"], second["g"]) == ([0, 0, 1, 1], [9, 0])
    assert "x" not in second  # there are matrices of the first pair only
    assert [model["label"] for model in data["models"]] == ["before", "after"]


@pytest.mark.parametrize("shape", [(3, 4), (1, 1), (0, 3)])
def test_a_matrix_is_packed_into_bytes(shape):
    matrix = np.random.default_rng(0).uniform(-1, 1, shape)
    if matrix.size > 1:
        matrix[0, 1] = np.nan
    low, high, packed = pack(matrix)
    values = np.frombuffer(base64.b64decode(packed), np.uint8).reshape(shape)
    assert ((values == 255) == np.isnan(matrix)).all()
    unpacked = low + (high - low) * values / 254
    assert np.nanmax(np.abs(unpacked - matrix) * (values < 255), initial=0) <= (high - low) / 508 + 1e-4


def test_nothing_in_the_data_ends_its_element(data, tmp_path):
    (kind, text), (_, code) = Scripts(link_page(data)).found
    assert kind == "application/json"
    assert json.loads(text) == json.loads(json.dumps(data))
    assert code.count("JSON.parse") == 1
    write_link_page(tmp_path / "page.html", data)
    assert "\\ud800" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_page_loads_nothing(data):
    page = link_page({**data, "pairs": []})
    assert "default-src 'none'" in page
    assert set(re.findall(r"https?://[^\s\"'`]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.findall(r"\b(?:src|href)\s*=|@import|url\(", page)
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", page)
    assert not re.findall(r"\[\[(?:(?:page|pair|links)\.|data)", page)


def test_thousands_of_pairs_make_a_page_of_a_few_megabytes():
    words = [f"शब्द{k}" for k in range(20)]
    n = 3000
    pairs = ViewedPairs("hi", "en", list(range(1, n + 1)), [words] * n, [words] * n)
    links = [{(k, k): 0.12345 for k in range(15)}] * n
    models = [ModelLinks(label, 8, links, [np.eye(20)] * 1000) for label in ("one", "two")]
    page = link_page(page_data(pairs, models, summarize(pairs, models), {}))
    assert len(page.encode()) < 10e6
