"""How results compare with published ones."""

from types import SimpleNamespace

import pytest

from run_nli import NliDataArguments
from utils.tasks import steps
from utils.tasks.published import PUBLISHED, note_on_published
from utils.tasks.registry import TASKS


XNLI = ("nli", "facebook/xnli")
HUB_MBERT = "google-bert/bert-base-multilingual-cased"


@pytest.mark.parametrize("one", PUBLISHED, ids=lambda one: f"{one.task}-{one.model}-{one.source}")
def test_what_was_published_is_of_a_task_and_within_itself(one):
    assert one.metric in TASKS[one.task].metrics
    assert all(0 < mean < 100 for mean, _ in one.scores.values())
    same = {language: mean for language, (mean, _) in one.scores.items()}
    note = note_on_published(one.task, one.data_set, f"someone/{one.model}", {one.metric: same})
    assert note.count("within") == len(same)
    assert one.source in note


@pytest.mark.parametrize(("score", "verdict"), [(55.0, "below"), (56.5, "within"), (62.9, "within"), (64.0, "above")])
def test_a_result_is_within_two_deviations_and_a_point(score, verdict):
    assert f"hi {verdict}" in note_on_published(*XNLI, HUB_MBERT, {"accuracy": {"hi": score}})


def test_where_sources_differ_everything_between_them_is_within():
    assert "hi within (69.0 to 72.4)" in note_on_published(*XNLI, "xlm-roberta-base", {"accuracy": {"hi": 70.7}})


@pytest.mark.parametrize(
    ("task", "data_set", "model", "scores"),
    [
        ("nli", "data/nli", HUB_MBERT, {"accuracy": {"hi": 60.0}}),
        ("nli", "facebook/xnli", "jhu-clsp/mmBERT-base", {"accuracy": {"hi": 60.0}}),
        ("ner", "facebook/xnli", HUB_MBERT, {"accuracy": {"hi": 60.0}}),
        ("nli", "facebook/xnli", HUB_MBERT, {"accuracy": {"sw": 60.0}}),
        ("nli", "facebook/xnli", HUB_MBERT, {"f1": {"hi": 60.0}}),
    ],
)
def test_nothing_is_said_of_what_was_not_published(task, data_set, model, scores):
    assert note_on_published(task, data_set, model, scores) == ""


def of_run(**changes):
    of_training = {"do_train": True, "max_steps": -1}
    training = {name: changes.pop(name, value) for name, value in of_training.items()}
    parallel = SimpleNamespace(romanize=changes.pop("romanize", []))
    data = NliDataArguments(**{"dataset_name": "xnli", **changes})
    model = SimpleNamespace(model_name_or_path=HUB_MBERT, hub_options=dict)
    training = SimpleNamespace(**training)
    return SimpleNamespace(task=TASKS["nli"], model=model, data=data, parallel=parallel, training=training)


@pytest.mark.parametrize(
    "changes",
    [{"do_train": False}, {"max_steps": 3}, {"max_train_samples": 10}, {"max_eval_samples": 10}, {"train_file": "a.jsonl"},
     {"max_predict_samples": 10}, {"test_file": ["hi=a.jsonl"]}, {"eval_dataset_name": "data/nli"}, {"train_language": "hi"}, {"few_shot": ["hi=9"]},
     {"romanize": ["hi"]}, {"dataset_name": "snli"}, {"dataset_name": "snli", "eval_dataset_name": "xnli"}, {"test_split": "validation"},
     {"train_split": "train[:10]"}, {"dataset_config_name": "hi"}],
)  # fmt: skip
def test_only_a_whole_run_on_the_usual_data_is_compared(changes, monkeypatch):
    monkeypatch.setattr(steps, "original_model", lambda name, **_: (name, "main"))
    metrics = {"predict_hi_accuracy": 0.6}
    assert "hi within" in steps._published(of_run(), "predict", ["hi"], metrics)
    assert steps._published(of_run(**changes), "predict", ["hi"], metrics) == ""
