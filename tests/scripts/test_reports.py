"""The report pages of whole runs, on tiny models: complete, in TensorBoard too, and readable on every screen."""

import json

import pytest

import run_align
import run_xsr
from helpers import tiny
from helpers.browser import BROWSER, in_frames
from helpers.outcomes import refusal
from helpers.pages import Page
from helpers.paths import DATA
from helpers.task_scripts import QUICK
from utils.evaluation import report


EVALUATE = ("--do_eval", "--eval_languages", "en", "hi", "--max_eval_samples", "8")


def results(out) -> dict:
    return json.loads((out / "all_results.json").read_text())


def page_of(out) -> Page:
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    assert page.references == []
    assert page.scripts == 0
    return page


@pytest.fixture
def adjust(run, tmp_path, model, bitext):
    def run_it(*arguments):
        out = tmp_path / "out"
        given = ("--language", "hi", "--parallel_file", bitext, "--validation_split_percentage", 25, "--do_train")
        run(run_align.main, "--model", model, *given, "--do_eval", "--output_dir", out, *QUICK, *arguments)
        return out

    return run_it


@pytest.mark.usefixtures("figures")
def test_of_an_adjustment(adjust):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    arguments = ("--eval_layers", 0, 1, "--eval_on_start", "--learning_rate", "1e-2", "--report_to", "tensorboard")
    out = adjust(*arguments)
    page, found = page_of(out), results(out)
    assert {f"{value:.4g}" if isinstance(value, float) else str(value) for value in found.values()} <= page.all_cells
    before = next(e for e in json.loads((out / "trainer_state.json").read_text())["log_history"] if e["step"] == 0)
    for direction in ("hi-en", "en-hi"):
        for layer, name in ((0, "layer0_"), (1, "layer1_"), (2, "")):
            key = f"eval_{direction}_{name}word_retrieval_accuracy"
            row = next(cells for cells in page.cells if cells[:2] == [direction, str(layer)])
            assert row[2:4] == [f"{100 * before[key]:.1f}", f"{100 * found[key]:.1f}"]
    assert page.titles[1:4] == ["Word retrieval", "What the adjustment changed", "Losses"]
    events = EventAccumulator(str(next((out / "runs").iterdir())))
    events.Reload()
    tags = set(events.Tags()["images"])
    assert {"Word retrieval/Layer 2", "Word retrieval/hi-en", "Losses/Training"} <= tags
    image = events.Images("Losses/Training")[0]
    assert (image.width, image.encoded_image_string[1:4]) == (920, b"PNG")


def test_an_earlier_report_is_kept_and_a_failed_one_replaces_nothing(adjust, tmp_path, monkeypatch):
    out = adjust()
    earlier = (out / "report.html").read_text()
    adjust("--overwrite_output_dir", "--seed", 7)
    assert (out / "_earlier-1" / "report.html").read_text() == earlier
    (tmp_path / "report.html").write_text("good")

    def fail(*_, **__):
        raise OSError("no space")

    monkeypatch.setattr(report, "retrieval_sections", fail)
    with pytest.raises(OSError, match="no space"):
        report.write_retrieval_report(tmp_path / "report.html", {}, {}, [], {"base_model": {}, "arguments": {"pooling": "", "distance": []}})  # fmt: skip
    assert (tmp_path / "report.html").read_text() == "good"


def test_of_a_task_beside_another_run(fine_tune):
    first = fine_tune("nli", "--do_train", *EVALUATE, "--max_steps", 1, output="first")
    out = fine_tune("nli", "--do_train", *EVALUATE, "--max_steps", 3, "--seed", 1, "--learning_rate", 0.05,
                    "--baseline_run", first)  # fmt: skip
    page, found = page_of(out), results(out)
    assert page.titles[1:3] == ["Scores by language", "What changed against the baseline"]
    for name in ("en", "hi"):
        scores = next(row for row in page.cells if row[0] == name)
        assert scores[1] == f"{100 * found[f'eval_{name}_accuracy']:.1f}"
    both = [
        [json.loads(line)["prediction"] for line in (run / "predictions" / "hi.jsonl").read_text().splitlines()]
        for run in (first, out)
    ]
    counts = next(row for row in page.cells if row[:2] == ["hi", "8"])
    assert counts[2] == str(sum(one != other for one, other in zip(*both)))


def test_a_baseline_without_use_or_on_other_data_is_refused(fine_tune):
    assert "--baseline_run" in refusal(lambda: fine_tune("nli", "--do_train", "--baseline_run", "x"))
    assert "x/run.json" in refusal(
        lambda: fine_tune("nli", "--do_train", *EVALUATE, "--baseline_run", "x", output="b")
    )
    out = fine_tune("nli", "--do_train", *EVALUATE, "--max_steps", 1, output="c")
    other = ("--do_eval", "--eval_languages", "en", "hi", "--max_eval_samples", "7", "--baseline_run", out)
    assert str(out) in refusal(lambda: fine_tune("nli", "--do_train", *other, output="d"))
    assert not (out.parent / "d" / "model.safetensors").exists()


@pytest.mark.usefixtures("figures")
def test_of_sentence_retrieval_in_a_browser(run, tmp_path, model):
    other = tiny.checkpoint(tmp_path / "other", seed=1)
    out = tmp_path / "xsr"
    run(run_xsr.main, "--models", model, other, "--dataset_name", DATA / "xsr", "--eval_languages", "hi", "ru",
        "--layers", "all", "--max_samples", 12, "--use_cpu", "--output_dir", out)  # fmt: skip
    page, found = page_of(out), results(out)
    for name, value in found.items():
        if name.endswith("_accuracy"):
            assert f"{100 * value:.1f}" in page.all_cells
    assert page.titles[1:3] == ["Sentence retrieval", "By layer"]
    if not BROWSER:
        pytest.skip("needs chromium")
    widths = (400, 1000, 1600)
    shown = in_frames(
        out / "report.html",
        tmp_path,
        widths,
        """
        const root = page.documentElement, box = (one) => one.getBoundingClientRect();
        const charts = [...page.querySelectorAll('svg')];
        return {wide: root.scrollWidth > root.clientWidth, charts: charts.length,
          outside: charts.filter((one) => box(one).right > root.clientWidth || box(one).width < 300).length,
          columns: new Set(charts.map((one) => box(one).left)).size,
          letters: Math.min(...charts.map((one) => 9 * box(one).width / one.viewBox.baseVal.width))};
        """,
    )
    for width, of_width in zip(widths, shown):
        assert (of_width["wide"], of_width["charts"], of_width["outside"]) == (False, 7, 0), width
        assert of_width["letters"] > 9
    assert [of_width["columns"] for of_width in shown] == [1, 2, 3]
