"""The registry of tasks: names, records of runs, what a prediction contributes to a metric."""

import pytest

from utils.core.errors import InputError
from utils.tasks.registry import TASKS, recorded_task, task_spec


@pytest.mark.parametrize("name", TASKS)
def test_every_entry_is_whole(name):
    spec = task_spec(name)
    assert spec.name == name
    assert spec.selection_metric in spec.metrics
    assert set(spec.metrics.values()) <= {1, 100}
    assert spec.auto_class.__name__.startswith("AutoModelFor")
    assert recorded_task({"task_name": name, "task": spec.pipeline_tag}) is spec


def test_an_unknown_name_raises():
    with pytest.raises(InputError, match="summarization"):
        task_spec("summarization")
    with pytest.raises(InputError, match="summarization"):
        recorded_task({"task_name": "summarization", "task": "text-classification"})


def test_old_records_have_the_pipeline_tag_alone():
    tags = {"text-classification": "nli", "token-classification": "ner", "question-answering": "qa"}
    for tag, name in tags.items():
        assert recorded_task({"task": tag}) is TASKS[name]
    assert recorded_task({"task": "cross-lingual-adjustment"}) is None


@pytest.mark.parametrize(
    ("name", "prediction", "gold", "contribution"),
    [
        ("nli", "neutral", "neutral", {"accuracy": 1.0}),
        ("nli", "neutral", "entailment", {"accuracy": 0.0}),
        ("pawsx", "paraphrase", "paraphrase", {"accuracy": 1.0}),
        ("ner", ["B-PER", "O", "B-LOC"], ["B-PER", "O", "B-ORG"], {"f1": (1, 1, 1)}),
        ("pos", ["NOUN", "VERB", "ADP"], ["NOUN", "VERB", "ADV"], {"accuracy": (2, 1, 1)}),
    ],
)
def test_contributions(name, prediction, gold, contribution):
    assert TASKS[name].score_prediction({"id": "0", "prediction": prediction, "gold": gold}) == contribution


def test_contribution_of_an_answer():
    row = {"id": "0", "prediction": "a b", "gold": ["a"], "f1": 0.5, "exact_match": 0.0}
    assert TASKS["qa"].score_prediction(row) == {"f1": 0.5, "exact_match": 0.0}


def test_a_damaged_line_of_predictions_raises():
    with pytest.raises(KeyError):
        TASKS["nli"].score_prediction({"prediction": "neutral"})
    with pytest.raises(ValueError, match="zip"):
        TASKS["pos"].score_prediction({"prediction": ["NOUN"], "gold": ["NOUN", "VERB"]})
