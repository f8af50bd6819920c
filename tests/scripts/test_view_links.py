"""view_links.py as a user types it, on tiny encoders; its page in a browser, where there is one."""

import json
import re

import pytest

import view_links
from helpers import tiny
from helpers.browser import BROWSER, in_browser, returned
from helpers.outcomes import refusal
from utils.alignment.words import WordTokenizer, split_on_punctuation
from utils.models.encoders import load_encoder
from utils.models.tokenizers import load_tokenizer
from utils.parallel.aligners.encoder import EncoderAligner


HOSTILE = ["</script><script>document.title='owned'</script>", "<img src=x onerror=document.title='owned'>"]


@pytest.fixture
def view(run, tmp_path, model, bitext):
    """Run the script with what every run needs; returns what the page was made of, and the page."""

    def run_it(*arguments):
        page = tmp_path / "pages" / "links.html"
        more = [] if "--parallel_file" in map(str, arguments) else ["--parallel_file", bitext]
        models = [] if "--models" in arguments else ["--model", model]
        run(view_links.main, *models, "--language", "hi", *more, "--output_file", page, "--use_cpu", *arguments)
        text = page.read_text(encoding="utf-8")
        data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
        return json.loads(data[1]), page

    return run_it


@pytest.fixture
def other(tmp_path) -> str:
    return tiny.checkpoint(tmp_path / "other", seed=1)


def test_the_page_has_the_links_of_every_model(view, model, other, bitext, capsys):
    data, _ = view("--models", model, other)
    pairs = [line.split("\t") for line in bitext.read_text(encoding="utf-8").splitlines()]
    source, english = ([split_on_punctuation(pair[side]) for pair in pairs] for side in (0, 1))
    assert [pair["s"] for pair in data["pairs"]] == source
    assert [model["layer"] for model in data["models"]] == [1, 1]  # two thirds of two layers
    for number, name in enumerate((model, other)):
        words = WordTokenizer(load_tokenizer(name), "avg", 64)
        for pair, links in zip(data["pairs"], EncoderAligner(load_encoder(name), words, 1).score(source, english)):
            flat = pair["m"][number]
            found = {(i, j): score for i, j, score in zip(flat[::3], flat[1::3], flat[2::3])}
            assert found == pytest.approx(links, abs=1e-4)
    assert data["models"][1]["changed_pairs"] > 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[:3]] == ["model", "encoder", "other"]


def test_the_usual_number_of_pairs_and_matrices_and_the_layer(view):
    data, _ = view("--max_pairs", 5, "--max_matrices", 2, "--layer", -1)
    assert [pair["n"] for pair in data["pairs"]] == [1, 2, 3, 4, 5]
    assert ["x" in pair for pair in data["pairs"]] == [True, True, False, False, False]
    assert data["models"][0]["layer"] == 2


def test_pairs_keep_their_number_and_their_given_links(view, tmp_path):
    (tmp_path / "c.tsv").write_text("uno dos\tone two\n\tnone\nuno\tone\na b c d\tone\n", encoding="utf-8")
    (tmp_path / "c.links").write_text("0-0 1-1\n\n0-0\n0-0\n", encoding="utf-8")
    arguments = ("--parallel_file", tmp_path / "c.tsv", "--links_file", tmp_path / "c.links", "--max_words", 3)
    data, _ = view(*arguments)
    assert [(pair["n"], pair["g"]) for pair in data["pairs"]] == [(1, [0, 0, 1, 1]), (3, [0, 0])]
    assert 0 <= data["models"][0]["precision"] <= 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--reverse_links"], "--reverse_links"),
        (["--layer", "9"], "--layer 9"),
        (["--languages", "hi", "ru"], "--language"),
        (["--max_words", "1"], "--max_words 1"),
        (["--output_file", "."], "--output_file ."),
        (["--output_file", "bitext.tsv/links.html"], "--output_file bitext.tsv/links.html"),
        (["--output_file", "bitext.tsv"], "would overwrite --parallel_file"),
    ],
)
def test_what_has_no_effect_or_cannot_be_shown_is_refused(view, tmp_path, monkeypatch, arguments, named):
    monkeypatch.chdir(tmp_path)
    assert named in refusal(lambda: view(*arguments))


def test_no_page_is_lost(view):
    _, page = view("--max_pairs", 1)
    assert str(page) in refusal(lambda: view("--max_pairs", 2))
    data, _ = view("--max_pairs", 2, "--overwrite_output_file")
    assert len(data["pairs"]) == 2


# --- In a browser ------------------------------------------------------------------------------------------------


@pytest.fixture
def page(view, model, other, tmp_path):
    """A page of two models, with sentences in several scripts and hostile ones."""
    if not BROWSER:
        pytest.skip("needs chromium")
    rows = [
        ("नदी शांत थी ।", "The river was quiet ."),
        ("كان النهر هادئا .", "The river was quiet ."),
        ("河 很 安静 。", "The river was quiet ."),
        *((text, "Nothing happens .") for text in HOSTILE),
        ("long " * 60, "very long " * 30),
        *((tiny.TEXT[k % 6], tiny.TEXT[(k + 1) % 6]) for k in range(24)),
    ]
    (tmp_path / "c.tsv").write_text("".join(f"{s}\t{e}\n" for s, e in rows), encoding="utf-8")
    data, made = view("--models", model, other, "--parallel_file", tmp_path / "c.tsv", "--word_splitting", "space")
    assert len(data["pairs"]) == len(rows)
    return data, made


def test_a_browser_shows_the_links(page, tmp_path):
    data, made = page
    found = returned(
        in_browser(
            made,
            tmp_path,
            script="""
            const panels = [...document.querySelectorAll('article .panel')];
            return {title: document.title, status: document.getElementById('status').textContent,
              articles: document.querySelectorAll('article').length,
              lines: panels.map((p) => p.querySelectorAll('g.link:not(.removed) path:not(.reach)').length),
              added: document.querySelectorAll('article g.added').length,
              images: document.querySelectorAll('img').length, wide: document.documentElement.scrollWidth > innerWidth,
              directions: [...document.querySelectorAll('.row')].map((row) => getComputedStyle(row).direction).slice(0, 8)};
            """,
        )
    )
    assert (found["articles"], found["images"], found["wide"]) == (20, 0, False)
    assert found["title"].startswith("Word links, Hindi")
    assert "1 to 20 of 30 pairs" in found["status"]
    assert found["lines"] == [len(links) // 3 for pair in data["pairs"][:20] for links in pair["m"]]
    names = [[set(zip(links[::3], links[1::3])) for links in pair["m"]] for pair in data["pairs"][:20]]
    assert found["added"] == sum(len(after - before) for before, after in names) > 0
    assert found["directions"] == ["ltr"] * 4 + ["rtl", "ltr"] * 2  # Hindi, then Arabic


def test_words_are_found_pages_turned_and_matrices_opened(page, tmp_path):
    data, made = page
    found = returned(
        in_browser(
            made,
            tmp_path,
            "page=2",
            script="""
            const text = (id) => document.getElementById(id).textContent;
            const first = text('status');
            location.hash = 'find=' + encodeURIComponent('النهر');
            dispatchEvent(new HashChangeEvent('hashchange'));
            const second = text('status');
            const word = document.querySelector('.word.linked');
            word.focus();
            const chosen = document.querySelectorAll('.word.chosen').length;
            const said = document.querySelector('.info').textContent;
            word.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowDown', bubbles: true}));
            const side = document.activeElement.dataset.side;
            const details = [...document.querySelectorAll('details')].slice(0, 2);
            for (const one of details) { one.open = true; one.dispatchEvent(new Event('toggle')); }
            return {first, second, chosen, said, side, label: word.getAttribute('aria-label'),
              rows: document.querySelectorAll('article details table:not(.matrix) tbody tr').length,
              cells: [...document.querySelectorAll('.matrix')].map((m) => m.querySelectorAll('tbody td').length),
              hits: document.querySelectorAll('.word.found').length};
            """,
        )
    )
    pair = data["pairs"][1]
    assert found["first"].startswith("21 to 30 of 30")
    assert found["second"].startswith("1 to 1 of 1 pair")
    assert found["chosen"] >= 2
    assert re.search(r"\d\.\d\d", found["said"])
    assert re.search(r"\d\.\d\d", found["label"])
    assert found["side"] == "e"
    assert found["rows"] == len({link for m in pair["m"] for link in zip(m[::3], m[1::3])})
    assert found["cells"] == [len(pair["s"]) * len(pair["e"])] * 2
    assert found["hits"] == 2


def test_long_sentences_scroll_together(page, tmp_path):
    _, made = page
    found = returned(
        in_browser(
            made,
            tmp_path,
            "find=very",
            """
            const panels = [...document.querySelectorAll('.panel > .scroll')];
            panels[0].scrollLeft = 300;
            panels[0].dispatchEvent(new Event('scroll'));
            return panels.map((panel) => panel.scrollLeft);
            """,
        )
    )
    assert found == [300, 300]


def test_only_pairs_that_changed(page, tmp_path):
    data, made = page
    status = returned(in_browser(made, tmp_path, "changed=1", "return document.getElementById('status').textContent"))
    n = data["models"][1]["changed_pairs"]
    assert f"of {n} pair" in status


def test_one_model_has_nothing_to_compare(view, tmp_path):
    if not BROWSER:
        pytest.skip("needs chromium")
    _, made = view("--max_pairs", 3)
    found = returned(
        in_browser(made, tmp_path, "changed=1", "return [document.querySelectorAll('article').length,"
                   "document.getElementById('changed-choice').hidden]")
    )  # fmt: skip
    assert found == [3, True]
