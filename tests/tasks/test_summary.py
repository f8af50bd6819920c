"""The mean over zero-shot languages, the transfer gap, and the table of a run."""

import pytest

from utils.tasks.registry import TASKS
from utils.tasks.summary import language_table, summarize


ACCURACY = {"predict_en_accuracy": 0.9, "predict_hi_accuracy": 0.6, "predict_ru_accuracy": 0.8}
NAMES = ["en", "hi", "ru"]


def test_means_and_gaps():
    """The gap is that of the definition: English minus the language."""
    found = summarize(ACCURACY, "predict", NAMES, ["hi", "ru"], TASKS["nli"])
    assert found == pytest.approx(
        {
            **ACCURACY,
            "predict_zero_shot_accuracy": 0.7,
            "predict_hi_gap_accuracy": 0.3,
            "predict_ru_gap_accuracy": 0.1,
            "predict_zero_shot_gap_accuracy": 0.2,
        }
    )


def test_a_language_with_training_examples_has_a_gap_but_is_not_in_the_mean():
    found = summarize(ACCURACY, "predict", NAMES, ["ru"], TASKS["nli"])
    assert found["predict_zero_shot_accuracy"] == 0.8
    assert found["predict_hi_gap_accuracy"] == pytest.approx(0.3)
    assert "predict_zero_shot_accuracy" not in summarize(ACCURACY, "predict", NAMES, [], TASKS["nli"])


def test_without_english_there_is_no_gap():
    metrics = {"eval_hi_accuracy": 0.6}
    assert summarize(metrics, "eval", ["hi"], ["hi"], TASKS["nli"]).keys() == {
        "eval_hi_accuracy", "eval_zero_shot_accuracy"
    }  # fmt: skip
    assert "gap" not in language_table({"eval_hi_accuracy": 0.6}, "eval", ["hi"], TASKS["nli"], {})


def test_the_table_ranks_the_gaps():
    found = summarize(ACCURACY, "predict", ["en", "ru", "hi"], ["ru"], TASKS["nli"])
    lines = language_table(found, "predict", ["en", "ru", "hi"], TASKS["nli"], {"hi": 100}).splitlines()
    assert [line.split() for line in lines[:-1]] == [
        ["predict", "accuracy", "gap"], ["en", "90.0", "–"], ["ru", "80.0", "10.0"], ["hi", "(100", "shots)", "60.0", "30.0"],
        ["zero-shot", "80.0", "10.0"],
    ]  # fmt: skip
    assert lines[-1].endswith("hi 30.0, ru 10.0.")


def test_gaps_are_in_the_unit_of_the_metric():
    """Those of QA are from 0 to 100, and of F1 alone."""
    metrics = {f"eval_{name}_{metric}": value for name, value in (("en", 80.0), ("hi-en", 50.0))
               for metric in ("exact_match", "f1")}  # fmt: skip
    found = summarize(metrics, "eval", ["en", "hi-en"], ["hi-en"], TASKS["qa"])
    assert {name: value for name, value in found.items() if "gap" in name} == {
        "eval_hi-en_gap_f1": 30.0, "eval_zero_shot_gap_f1": 30.0
    }  # fmt: skip
    assert "hi-en 30.0" in language_table(found, "eval", ["en", "hi-en"], TASKS["qa"], {})
