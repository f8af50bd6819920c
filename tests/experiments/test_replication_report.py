"""The report of a replication, of runs written by hand."""

import copy
import gzip
import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser

import pytest

import replicate
from helpers.figures import inked
from helpers.runs import write_alignment, write_nli, write_xsr
from utils.core.errors import InputError
from utils.core.files import write_json
from utils.experiments import figures
from utils.experiments.arms import ABLATION, ADJUSTED, ADJUSTED_CONTINUAL, ORIGINAL
from utils.experiments.claims import CLAIMS, place, verdict_on
from utils.experiments.comparison import comparison_table
from utils.experiments.figures import plot_differences
from utils.experiments.grid import SETTINGS, Grid
from utils.experiments.marks import mark_done
from utils.experiments.plan import plan
from utils.experiments.predictors import Point, gains
from utils.experiments.report import as_html, write_report
from utils.experiments.results import read_results
from utils.experiments.run_archives import read_runs_and_archives
from utils.experiments.runner import alone_in


SEEDS = [1, 2, 3]
# Right answers of 200, by regime and seed.
RIGHT = {
    ORIGINAL: (100, 102, 98),
    ADJUSTED: (140, 141, 139),
    ADJUSTED_CONTINUAL: (141, 142, 140),
    ABLATION: (99, 100, 101),
}


def small_grid(**changes) -> Grid:
    usual = {"languages": ["hi"], "seeds": SEEDS, "tasks": ["nli", "xsr"], "regimes": list(RIGHT)}
    return Grid(**{"model_name_or_path": "mbert", **usual, **changes})


def write_grid(out, grid, right=RIGHT, but=()):
    """What the runs of a grid leave."""
    runs = plan(grid)
    for run in runs:
        if run.name in but:
            continue
        folder = out / run.name
        if run.task == "words":
            write_alignment(folder, do_train=False)
        elif run.task == "align":
            write_alignment(folder, seed=run.seed)
        elif run.task == "nli":
            base = "mbert" if run.regime == ORIGINAL else out / run.needs[0]
            settings = {"languages": ["hi"], "alignment_weight": 0 if run.regime == ABLATION else 0.01}
            continual = run.regime in (ADJUSTED_CONTINUAL, ABLATION)
            facts = {"regime": "continual", "arguments": settings} if continual else {}
            n = right[run.regime][SEEDS.index(run.seed)]
            write_nli(folder, [1] * n + [0] * (200 - n), seed=run.seed, base_model=base, **facts)
        elif run.task == "xsr":
            write_xsr(folder / "mbert", [1] * 100 + [2] * 100)
            for seed in grid.seeds:
                write_xsr(folder / f"hi-seed{seed}", [1] * 150 + [2] * 50, base_model=out / f"align/hi-seed{seed}")
            models = {"mbert": "mbert", **{f"hi-seed{seed}": str(out / f"align/hi-seed{seed}") for seed in grid.seeds}}
            write_json(
                folder / "run.json", {"base_model": models, "arguments": {"pooling": "mean", "distance": "cosine"}}
            )
        elif run.task == "distances":
            stages = {"mbert": 0.5, "hi-seed1": 0.8, "original-seed1": 0.4, "adjusted-hi-seed1": 0.6,
                      "adjusted+continual-hi-seed1": 0.7}  # fmt: skip
            numbers = {}
            for label, value in stages.items():
                for layer, of_layer in ((0, 0.1), (12, value)):
                    where = f"layer{layer}_cosine"
                    numbers[f"{label}/hi_{where}_share_nearer"] = of_layer + 0.1
                    numbers[f"{label}/hi-en_{where}_word_retrieval_accuracy"] = of_layer
            write_json(folder / "all_results.json", numbers)
        mark_done(run, out)
    return runs


def results_of(out, grid, **options):
    return read_results(grid, plan(grid), out, {}, n_resamples=2000, **options)


def test_the_numbers_are_those_of_the_runs(tmp_path):
    grid = small_grid(settings={"distances": {}})
    write_grid(tmp_path, grid)
    results = results_of(tmp_path, grid)
    report = unpadded(write_report(results, tmp_path, {"Commit": "`abc`"}))
    cells = re.findall(r"^\| (original|adjusted.*?) \| (.*?) \|", report, re.MULTILINE)
    assert cells[0] == ("original", "50.0 ± 1.0")
    assert cells[1] == ("adjusted", "70.0 ± 0.5 (+20.0*)")
    assert cells[2] == ("adjusted, continual", "70.5 ± 0.5 (+20.5*)")
    assert cells[3] == ("adjusted, continual with alignment weight 0", "50.0 ± 0.5 (0.0)")
    assert "| original | 50.0 | 50.0 | 50.0 |" in report  # sentences: two directions
    assert "| adjusted | 75.0 ± 0.0 (+25.0*) | 75.0 ± 0.0 (+25.0*) | 75.0 |" in report
    assert "*adjusted, continual – adjusted*: hi +0.5." in report
    assert "Of 3 claims of the paper that could be tested: seen: 2; no significant difference: 1." in report
    assert ", layer 12, " in report.split("What was learned")[1]  # the highest that was measured
    assert "| adjusted, fine-tuned (nli) | 70.0 / 60.0 |" in report
    assert (
        "| Fine-tuning forgets alignment (word retrieval falls). | hi −20.0 | not tested: lower in 1 of 1 (first seed) | – |"
        in report
    )
    assert (
        "| Continual learning keeps more of it. | hi +10.0 | not tested: higher in 1 of 1 (first seed) | – |" in report
    )
    assert results.n_comparisons == 5 + 2  # three with the original and two among each other; two directions
    assert f"for all {results.n_comparisons} comparisons" in report


def unpadded(path):
    """A report as it reads: with the cells of its tables as narrow as can be, and its stars not escaped."""
    return re.sub(" +", " ", path.read_text(encoding="utf-8")).replace(r"\*", "*")


def test_variants_have_rows_and_comparisons_of_their_own(tmp_path, monkeypatch):
    """With the original, with the first variant, and in what is said of the claims; also where nothing else distinguishes
    them."""
    settings = {"variants": {"mse": {}, "best": {"links_file": "x"}}, "align": {"do_eval": True}}
    right = {ORIGINAL: (100, 102, 98), "adjusted-mse": (120, 121, 119), "adjusted-best": (150, 151, 149)}
    grid = small_grid(tasks=["words", "nli"], regimes=[ORIGINAL, ADJUSTED], settings=settings)
    write_grid(tmp_path, grid, right)
    results = results_of(tmp_path, grid)
    assert set(results.scores["nli"]) == set(right)
    assert set(results.scores["words"]) == set(right)
    assert results.comparisons["nli", "adjusted-best", ORIGINAL]["hi"].difference == pytest.approx(0.25)
    assert results.comparisons["nli", "adjusted-best", "adjusted-mse"]["hi"].difference == pytest.approx(0.15)
    report = unpadded(write_report(results, tmp_path, {}))
    assert "| adjusted (best) | 75.0 ± 0.5 (+25.0*)" in report
    assert "*adjusted (best) – adjusted (mse)*: hi +15.0*." in report
    assert "Adjustment helps NLI in all four languages. (best) | hi +25.0* | yes, in 1 of 1 |" in report
    found = gains(results)["Natural language inference"]
    assert [point.gain for point in found["word retrieval before (%)"]] == pytest.approx([10, 25])
    assert {point.predictor for point in found["word retrieval before (%)"]} == {50.0}
    assert {point.predictor for point in found["change of word retrieval (points)"]} == {0.0}
    assert "What predicts" not in report  # of one language
    of_languages = [Point(f"l{k}", float(k), float(k % 4)) for k in range(6)]
    monkeypatch.setattr("utils.experiments.report.gains", lambda _: {"NLI": {"change": of_languages}})
    report = unpadded(write_report(results, tmp_path, {}))
    assert re.search(r"\| NLI \| change \| \+0\.\d\d \[−0\.\d\d, \+0\.\d\d\] \| 6 \|", report)
    assert (tmp_path / "predictors.png").exists()


def write_forgetting(out):
    """A grid, as it leaves it, in which fine-tuned models find fewer links than before."""
    after = {ORIGINAL: 1, ADJUSTED: 2, ADJUSTED_CONTINUAL: 3, ABLATION: 3}
    grid = small_grid(tasks=["words", "nli", "forgetting"], settings={"align": {"do_eval": True}})
    runs = write_grid(out, grid)
    for run in runs:
        if run.task in ("words", "align"):
            write_alignment(out / run.name, run.seed, found=[4 if run.seed else 2] * 120, do_train=bool(run.seed))
        elif run.task == "forgetting":
            base = out / run.needs[0]
            found = [after[run.regime]] * 120
            write_alignment(out / run.name, None, found=found, base_model=str(base), do_train=False)
    return grid


def test_what_fine_tuning_forgets_is_tested_over_all_seeds(tmp_path):
    """Word retrieval of every fine-tuned model, beside that of the model before its fine-tuning."""
    results = results_of(tmp_path, write_forgetting(tmp_path))
    changes = results.comparisons["forgetting", ADJUSTED, f"{ADJUSTED}, before"]
    assert {name: one.difference for name, one in changes.items()} == pytest.approx({"hi-en": -0.4, "en-hi": -0.4})
    assert results.comparisons["forgetting", ORIGINAL, f"{ORIGINAL}, before"]["hi-en"].difference == pytest.approx(
        -0.2
    )
    assert results.scores["forgetting"][f"{ADJUSTED}, before"]["hi-en"] == pytest.approx([0.8] * 3)
    assert verdict(results, "forgets").startswith("yes")
    assert verdict(results, "keeps more").startswith("yes")
    assert verdict(results, "that keeps it") == "no significant difference"
    report = unpadded(write_report(results, tmp_path, {}))
    assert "| adjusted, before fine-tuning | 80.0" in report


def test_retrieval_by_other_measures(tmp_path):
    """Of the last layer; means over directions and seeds."""
    grid = small_grid(tasks=["xsr"], regimes=[ORIGINAL, ADJUSTED])
    write_grid(tmp_path, grid)
    for number, label in enumerate(["mbert", "hi-seed1", "hi-seed2", "hi-seed3"]):
        path = tmp_path / "xsr" / "hi" / label / "all_results.json"
        others = {"hi_layer8_mexa": 0.9, "hi_layer12_mexa": number / 10, "hi_mexa_max": 1.0}
        others |= {"hi-en_layer12_csls_accuracy": 0.5, "en-hi_layer12_csls_accuracy": 0.7}
        write_json(path, json.loads(path.read_text(encoding="utf-8")) | others)
    results = results_of(tmp_path, grid)
    assert results.retrieval[ORIGINAL] == pytest.approx({"hi, MEXA": 0.0, "hi, CSLS": 0.6})
    assert results.retrieval[ADJUSTED] == pytest.approx({"hi, MEXA": 0.2, "hi, CSLS": 0.6})
    report = unpadded(write_report(results, tmp_path, {}))
    assert "| adjusted | 60.0 | 20.0 |" in report
    assert results.retrieval_layers == [12]
    assert "<sub>Layer 12, " in report


def test_models_that_are_not_fine_tuned_plainly_are_measured(tmp_path):
    """The original and the adjusted models have rows of word retrieval also where no regime names them."""
    settings = {"align": {"do_eval": True}, "variants": {"a": {}, "b": {}}}
    grid = small_grid(tasks=["words", "nli"], regimes=[ADJUSTED_CONTINUAL], settings=settings)
    right = {f"{ADJUSTED_CONTINUAL}-{variant}": (100, 101, 102) for variant in "ab"}
    write_grid(tmp_path, grid, right)
    results = results_of(tmp_path, grid)
    assert set(results.scores["words"]) == {ORIGINAL, "adjusted-a", "adjusted-b"}
    assert "| adjusted (b) | 50.0" in unpadded(write_report(results, tmp_path, {}))
    assert {key for key in results.comparisons if key[0] == "words"} == {
        ("words", "adjusted-a", ORIGINAL), ("words", "adjusted-b", ORIGINAL), ("words", "adjusted-b", "adjusted-a")
    }  # fmt: skip


@pytest.mark.parametrize("tasks", [["words", "nli"], ["forgetting", "nli"], ["words", "forgetting"]])
def test_what_forgetting_needs(tasks):
    with pytest.raises(InputError):
        small_grid(tasks=tasks, settings={} if tasks == ["words", "nli"] else {"align": {"do_eval": True}})


def verdict(results, words):
    claim = next(claim for claim in CLAIMS if words in claim.words)
    return verdict_on(results.comparisons.get(place(claim, ""), {}), claim)


def test_verdicts(tmp_path):
    grid = small_grid()
    write_grid(tmp_path / "gain", grid)
    found = results_of(tmp_path / "gain", grid)
    assert verdict(found, "helps NLI in all") == "yes, in 1 of 1"
    assert verdict(found, "sentence retrieval") == "yes, in 1 of 1"
    assert verdict(found, "Continual learning helps NLI") == "no significant difference"
    assert verdict(found, "that helps NLI, not the regularizer") == "yes, in 1 of 1"
    assert verdict(found, "helps NER") is None
    write_grid(tmp_path / "loss", grid, {**RIGHT, ADJUSTED: (60, 61, 59)})
    found = results_of(tmp_path / "loss", grid)
    assert verdict(found, "helps NLI in all") == "no: worse in 1 of 1"


def test_few_seeds_carry_no_claim(tmp_path):
    grid = small_grid(seeds=[1], tasks=["nli"])
    write_grid(tmp_path, grid)
    results = results_of(tmp_path, grid)
    report = write_report(results, tmp_path, {}).read_text(encoding="utf-8")
    assert r"(+20.0(\*))" in report
    assert r": hi +21.0(\*)." in report  # (two in a line without a backslash would be emphasis)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert ": hi +21.0(*)." in page
    assert "(+20.0(*))" in page
    assert "<em>" not in page.replace("<em>adjusted", "").replace("<em>original", "")
    assert verdict(results, "helps NLI in all").startswith("undecided")


def test_too_few_resamples_are_said(tmp_path):
    grid = small_grid()
    write_grid(tmp_path, grid)
    for n_resamples, said in ((100, True), (2000, False)):
        results = read_results(grid, plan(grid), tmp_path, {}, n_resamples)
        report = unpadded(write_report(results, tmp_path, {}))
        assert ("--n_resamples 1,400 or more" in report) == said
        # Also with every table: what is significant depends on all of them.
        table = (tmp_path / "comparison.md").read_text(encoding="utf-8")
        assert table.count("--n_resamples 1,400 or more") == len(results.tables) * said
        assert {int(n) for n in re.findall(r"all (\d+) comparisons", table)} == {results.n_comparisons}
        assert ("+20.0*" in report) == (not said)


def test_a_report_of_what_there_is(tmp_path):
    grid = small_grid()
    runs = write_grid(tmp_path, grid, but=["nli/adjusted-hi-seed3", "xsr/hi"])
    results = read_results(grid, runs, tmp_path, {"xsr/hi": "failed with status 1: error: a | b (see x)"}, 2000)
    report = unpadded(write_report(results, tmp_path, {}))
    assert "| nli/adjusted-hi-seed3 | not run yet |" in report
    assert "| xsr/hi | failed with status 1: error: a \\| b (see x) |" in report
    assert "## Sentence retrieval" not in report
    nothing = write_report(read_results(grid, runs, tmp_path / "empty", {}, 2000), tmp_path / "empty", {})
    text = nothing.read_text(encoding="utf-8")
    assert "\n|  |\n" not in text  # (a table without rows)
    assert "test no claim" in text


@pytest.mark.usefixtures("figures")
def test_the_same_runs_give_the_same_bytes(tmp_path):
    grid = small_grid()
    write_grid(tmp_path / "one", grid)
    written = []
    for name in ("one", "other"):
        if name == "other":
            shutil.copytree(tmp_path / "one", tmp_path / "other")
            for path in (tmp_path / "other").rglob("run.json"):  # (they name each other by their folders)
                path.write_text(path.read_text().replace(str(tmp_path / "one"), str(tmp_path / "other")))
        write_report(results_of(tmp_path / name, grid), tmp_path / name, {"Seeds": "1, 2, 3"})
        files = ("report.md", "report.html", "differences.png", "differences.pdf", "comparison.csv", "comparison.tex",
                 "grid.runs.jsonl.gz")  # fmt: skip
        written.append({file: (tmp_path / name / file).read_bytes() for file in files})
    assert written[0] == written[1]
    archive = gzip.decompress(written[0]["grid.runs.jsonl.gz"])
    assert str(tmp_path).encode() not in b"".join([*written[0].values(), archive])


def test_the_archive_of_a_grid_has_its_scores(tmp_path):
    """Of every part, also of word retrieval after fine-tuning; each run once."""
    grid = write_forgetting(tmp_path)
    results = results_of(tmp_path, grid)
    write_report(results, tmp_path, {})
    runs = read_runs_and_archives([str(tmp_path / "grid.runs.jsonl.gz")])
    assert comparison_table(runs).rows  # (no run is there twice)
    metrics = {"nli": "accuracy", "cross-lingual-adjustment": "word_retrieval_accuracy"}
    found = Counter(
        (run.task, language, one.results[metrics[run.task]]) for run in runs for language, one in run.sets.items()
    )
    expected = Counter()
    for part, task in {
        "nli": "nli",
        "words": "cross-lingual-adjustment",
        "forgetting": "cross-lingual-adjustment",
    }.items():
        for arm, of_arm in results.scores[part].items():
            if not arm.endswith(", before"):  # (those of `words` once more)
                expected.update((task, language, score) for language, scores in of_arm.items() for score in scores)
    assert found == expected


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.sources = [], []

    def handle_starttag(self, tag, attributes):
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.usefixtures("figures")
def test_the_page_stands_alone(tmp_path):
    grid = small_grid()
    write_grid(tmp_path, grid)
    write_report(results_of(tmp_path, grid), tmp_path, {"Model": "`a < b`"})
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    assert len(tags.sources) == 2  # scores, differences
    assert tags.sources[0].startswith("data:image/png;base64,")
    assert "<table>" in page
    assert "a &lt; b" in page
    assert "![" in (tmp_path / "report.md").read_text(encoding="utf-8")
    marked = r"hi +25.0\*, ru −1.0\*, es +2.0 (\*), vi +3.0 (\*)"
    assert f"<p>{marked} <em>a</em></p>".replace("\\", "") in as_html(f"{marked} *a*", tmp_path)
    assert "<code>(*)</code>" in as_html("`(*)` is *no* mark", tmp_path)
    assert 'src="nowhere.png"' in as_html("# A\n\n![x](nowhere.png)", tmp_path)


def test_the_report_has_every_setting_that_runs_were_made_with():
    given = {name: {"seed": k} for k, name in enumerate(SETTINGS) if name not in ("variants", "launch")}
    given |= {"variants": {"two": {"alignment_layer": 4}}, "launch": {"mixed_precision": "bf16"}}
    given["align"] |= {"do_eval": True}
    for tasks in (["nli"], ["words", "ner", "xsr"], ["qa", "mlqa"]):
        for regimes in (["original", "adjusted"], ["original", "translate-train"]):
            grid = small_grid(seeds=[1], tasks=tasks, regimes=regimes, settings=copy.deepcopy(given))
            shown = replicate.conditions(grid, {"versions": {}, "git_commit": "1a2b3c4"})
            of_tasks = [f"Settings of `{task}`" for task in tasks if task in SETTINGS]
            translated = [f"{name[:-1]}_translated`" for name in of_tasks if f"{name[13:-1]}_translated" in SETTINGS]
            wanted = {f"Settings of `{name}`" for name in ("parallel", "align", "continual", "distances", "launch")}
            wanted |= {*of_tasks, *(translated if "translate-train" in regimes else ())}
            assert {name for name in shown if name.startswith("Settings")} == wanted
            assert "bf16" in shown["Settings of `launch`"]
            assert "4" in shown["Variant `two`"]


HOSTILE = (
    "<script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "a|b\n\n<div onload=x>",
    "`</code><b>",
    "$\\frac{x$",
    "_x",
    "x" * 300,
)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.usefixtures("figures")
def test_names_break_no_report(tmp_path, name):
    """A model, a setting, and the reason of a failure, which come from anywhere."""
    pages = []
    for text in ("mbert", name):
        out = tmp_path / str(len(pages))
        grid = small_grid(seeds=[1], tasks=["nli"], settings={"nli": {"dataset_name": text}})
        runs = write_grid(out, grid, but=["nli/adjusted+continual-hi-seed1"])
        grid.model_name_or_path = text
        results = read_results(grid, runs, out, {"nli/adjusted+continual-hi-seed1": f"failed: {text}"}, 200)
        record = {"versions": {text: text}, "git_commit": text}
        write_report(results, out, replicate.conditions(grid, record))
        page = (out / "report.html").read_text(encoding="utf-8")
        tags = _Tags()
        tags.feed(page)
        assert tags.open == []
        assert all(source.startswith("data:image/png;base64,") for source in tags.sources)
        pages.append(re.findall(r"<(\w+)", re.sub("<code>|</code>", "", page)))
    assert pages[0] == pages[1]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.usefixtures("figures")
def test_names_break_no_figure(tmp_path, name):
    plot_differences({name: {name: {"hi": (0.1, 0.0, 0.2)}, "other": {"hi": (0.1, 0.0, 0.2)}}}, tmp_path / "x", name)
    assert inked(tmp_path / "x.png") > 0


@pytest.mark.usefixtures("figures")
@pytest.mark.parametrize("baselines", [None, {"NER": {"hi": 0.5, "hi-Latn": 0.2, "ru": 0.4}}])
def test_the_figure_shows_the_numbers(tmp_path, monkeypatch, baselines):
    """Differences, or scores if those of the baseline are given; languages in the given order, others after them."""
    drawn = []
    monkeypatch.setattr(figures, "save_png_and_pdf", lambda figure, path: drawn.append(figure.axes[0]))
    of_languages = {"hi-Latn": (0.1, 0.05, 0.15), "hi": (-0.1, -0.2, 0.0), "ru": (0.02, 0.01, 0.03)}
    plot_differences({"NER": {"mse": of_languages}}, tmp_path / "x", "", baselines, ["ru", "hi"])
    (axis,) = drawn
    assert [label.get_text() for label in axis.get_xticklabels()] == ["ru", "hi", "hi-Latn"]
    line, _, (bars,) = axis.containers[0]
    levels = baselines["NER"] if baselines else dict.fromkeys(of_languages, 0)
    expected = {
        place: [100 * (levels[name] + value) for value in of_languages[name]]
        for place, name in enumerate(("ru", "hi", "hi-Latn"))
    }
    assert dict(zip(*line.get_data())) == {place: pytest.approx(values[0]) for place, values in expected.items()}
    for ((x, low), (_, high)), _ in zip(bars.get_segments(), expected):
        assert [low, high] == pytest.approx(expected[round(x)][1:])


def test_reporting_alone_starts_nothing(run, tmp_path, capsys):
    write_grid(tmp_path, small_grid())
    words = (
        "--model_name_or_path",
        "mbert",
        "--languages",
        "hi",
        "--seeds",
        *SEEDS,
        "--tasks",
        "nli",
        "xsr",
        "--regimes",
    )
    with alone_in(tmp_path):  # nor does it wait for a grid that is at work
        run(replicate.main, "--output_dir", tmp_path, *words, *RIGHT, "--n_resamples", "500", "--report_only")
    shown = capsys.readouterr().out
    assert "yes, in 1 of 1" in shown
    assert "## " not in shown  # the first screen
    assert "report.html" in shown
    assert not (tmp_path / "logs").exists()
