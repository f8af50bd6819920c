"""Arguments of the task scripts that only make sense together."""

import sys

import pytest

import run_ner
import run_nli
import run_qa
from helpers import tiny
from utils.core.errors import InputError
from utils.tasks.arguments import parse_task_arguments
from utils.tasks.registry import TASKS
from utils.tasks.steps import known_labels, length_limit


SCRIPTS = {
    "nli": (run_nli.NliDataArguments, run_nli.NliTrainingArguments),
    "ner": (run_ner.NerDataArguments, run_ner.NerTrainingArguments),
    "qa": (run_qa.QaDataArguments, run_qa.QaTrainingArguments),
}


@pytest.fixture
def parse(monkeypatch, tmp_path):
    def parse(task, *words):
        model = tiny.checkpoint(tmp_path / "model")
        given = [
            "--model",
            model,
            "--output_dir",
            str(tmp_path / "out"),
            "--do_train",
            "--do_eval",
            "--use_cpu",
            *words,
        ]
        monkeypatch.setattr(sys, "argv", ["run.py", *given])
        return parse_task_arguments(task, *SCRIPTS[task], description=None)

    return parse


EVALUATE = ("--eval_strategy", "steps", "--eval_languages", "en", "hi", "--metric_for_best_model")


@pytest.mark.parametrize("task", SCRIPTS)
@pytest.mark.parametrize(
    "metric", ["accuracy", "eval_accuracy", "en", "vi_{}", "en_{}x", "eval_en_HasAns_f1", "en_ {}", "x"]
)
def test_a_metric_that_is_not_measured_is_refused(parse, task, metric):
    with pytest.raises(InputError, match="--metric_for_best_model"):
        parse(task, *EVALUATE, metric.format(TASKS[task].selection_metric))


@pytest.mark.parametrize("task", SCRIPTS)
@pytest.mark.parametrize("prefix", ["", "eval_"])
def test_a_metric_that_is_measured(parse, task, prefix):
    for metric in [*TASKS[task].metrics, "loss"]:
        training = parse(task, *EVALUATE, f"{prefix}hi_{metric}").training
        assert training.metric_for_best_model == f"{prefix}hi_{metric}"
        assert training.greater_is_better == (metric != "loss")
    if task == "qa":
        parse(task, *EVALUATE, f"{prefix}hi_best_f1", "--version_2_with_negative")


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_special_tokens_alone_are_no_input(length):
    with pytest.raises(InputError, match="--max_seq_length"):
        length_limit(length, 128, tiny.pair_tokenizer(), tiny.model())
    assert length_limit(5, 128, tiny.pair_tokenizer(), tiny.model()) == 5


@pytest.mark.parametrize("label2id", [None, {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}])
def test_classes_without_names_are_not_evaluated(parse, tmp_path, label2id):
    """Nobody knows which class is which; training names them."""
    args = parse("nli")
    if label2id:
        labels = {"label2id": label2id, "id2label": {k: name for name, k in label2id.items()}}
        tiny.model(head="ForSequenceClassification", **labels).save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match="id2label"):
        known_labels(args, None)
    assert known_labels(args, ["no", "yes"]) == ["no", "yes"]


def test_named_classes_keep_their_order(parse, tmp_path):
    args = parse("nli")
    labels = {"id2label": {0: "C", 1: "E", 2: "N"}, "label2id": {"C": 0, "E": 1, "N": 2}}
    tiny.model(head="ForSequenceClassification", **labels).save_pretrained(tmp_path / "model")
    assert known_labels(args, None) == known_labels(args, ["E", "N", "C"]) == ["C", "E", "N"]
    assert known_labels(args, ["e", "n", "c"]) == ["c", "e", "n"]  # every row of the head keeps its class
    for others in (["n", "e"], ["n", "N", "c", "e"], ["c", "e", "n", "x"]):
        assert known_labels(args, others) == others
