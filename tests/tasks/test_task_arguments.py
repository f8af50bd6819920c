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
from utils.tasks.steps import length_limit


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
