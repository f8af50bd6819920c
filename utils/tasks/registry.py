"""The tasks, by name: what the Hub, the scripts, the cards and the comparisons need to know of each.

A task is one entry here and one script, `run_{name}.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import transformers  # (which imports its modules when they are used)

from utils.core.errors import look_up
from utils.evaluation.entities import entities
from utils.tasks.chance import BLIND_ANSWER, EVERY_WORD, FREQUENT_LABEL, FREQUENT_TAG, Chance


# What an example contributes to a metric: a score between 0 and 1 of which the mean is taken, or the counts of true
# positives, false positives and false negatives of which F1 is computed over all examples.
Contribution = float | tuple[int, int, int]
# Pipeline tag of the Hub → class with the head.
_HEADS = {
    "question-answering": "AutoModelForQuestionAnswering",
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
}


@dataclass(frozen=True)
class TaskSpec:
    """A task that one script fine-tunes and evaluates.

    Attributes:
        name: key in `TASKS`, and `task_name` in `run.json`.
        title: for tables and model cards.
        pipeline_tag: the Hub's name for such tasks, `task` in `run.json`; several tasks may share one.
        metrics: metric → its value when everything is right (1 or 100).
        selection_metric: the metric that selects the best checkpoint.
        score_prediction: a line of `predictions/LANGUAGE.jsonl` → what it contributes to the metrics that runs are
            compared by. Raises KeyError, TypeError or ValueError for a damaged line.
        chance: the strategy that a model which has learned something must beat.
        measured_by: names in `utils.evaluation.metrics` of what computes `metrics`.
        rules: arguments of the script that change how predictions are judged; runs are comparable only if they agree.
    """

    name: str
    title: str
    pipeline_tag: str
    metrics: Mapping[str, int]
    selection_metric: str
    score_prediction: Callable[[Mapping[str, Any]], dict[str, Contribution]]
    chance: Chance
    measured_by: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()

    @property
    def auto_class(self) -> Any:
        """`AutoModelFor…`, with the task's head."""
        return getattr(transformers, _HEADS[self.pipeline_tag])

    def measure(self, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
        """Those of `metrics` that `measured_by` computes."""
        from utils.evaluation.metrics import (
            load_metric,
        )  # (evaluate takes long to import, and not every task needs it)

        found: dict[str, float] = {}
        for name in self.measured_by:
            found |= load_metric(name).compute(predictions=predictions, references=references) or {}
        return {metric: found[metric] for metric in self.metrics if metric in found}


def _score_label(row: Mapping[str, Any]) -> dict[str, Contribution]:
    return {"accuracy": float(row["prediction"] == row["gold"])}


def _score_entities(row: Mapping[str, Any]) -> dict[str, Contribution]:
    found, wanted = set(entities(row["prediction"])), set(entities(row["gold"]))
    return {"f1": (len(found & wanted), len(found - wanted), len(wanted - found))}


def _score_words(row: Mapping[str, Any]) -> dict[str, Contribution]:
    """Every word has one tag, so that a wrong one is a false positive and a false negative: F1 is then the accuracy."""
    wrong = sum(found != wanted for found, wanted in zip(row["prediction"], row["gold"], strict=True))
    return {"accuracy": (len(row["gold"]) - wrong, wrong, wrong)}


def _score_answer(row: Mapping[str, Any]) -> dict[str, Contribution]:
    return {metric: float(row[metric]) for metric in ("f1", "exact_match")}


_ACCURACY = {"accuracy": 1}
_ENTITIES = {"precision": 1, "recall": 1, "f1": 1}
_ANSWERS = {"exact_match": 100, "f1": 100}  # computed by the script, question by question
_RULES = ("answer_normalization", "version_2_with_negative")
_SPECS = (
    TaskSpec(
        "nli", "Natural language inference", "text-classification",
        _ACCURACY, "accuracy", _score_label, FREQUENT_LABEL, ("accuracy",),
    ),
    TaskSpec("ner", "Named entities", "token-classification", _ENTITIES, "f1", _score_entities, EVERY_WORD, ("seqeval",)),
    TaskSpec("qa", "Question answering", "question-answering", _ANSWERS, "f1", _score_answer, BLIND_ANSWER, rules=_RULES),
    TaskSpec(
        "pos", "Parts of speech", "token-classification",
        _ACCURACY, "accuracy", _score_words, FREQUENT_TAG, ("accuracy",),
    ),
    TaskSpec(
        "pawsx", "Paraphrases", "text-classification",
        _ACCURACY, "accuracy", _score_label, FREQUENT_LABEL, ("accuracy",),
    ),
)  # fmt: skip
TASKS: dict[str, TaskSpec] = {spec.name: spec for spec in _SPECS}


def task_spec(name: str) -> TaskSpec:
    """The task of a name; raises `InputError` for an unknown one."""
    return look_up(TASKS, name, "The task")


def recorded_task(record: Mapping[str, Any]) -> TaskSpec | None:
    """The task of a run, from its `run.json`; None if the run is not of a task.

    Records from before `task_name` have the pipeline tag alone, which then meant one task each (NLI, NER, QA).

    Raises:
        InputError: for an unknown `task_name`.
    """
    if name := record.get("task_name"):
        return task_spec(name)
    return next((spec for spec in TASKS.values() if spec.pipeline_tag == record.get("task")), None)
