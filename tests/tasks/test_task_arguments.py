"""Arguments of the task scripts that only make sense together."""

import sys

import pytest

import run_ner
import run_nli
import run_qa
from helpers import tiny
from utils.core.errors import InputError
from utils.core.romanization import files_by_source
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


@pytest.mark.parametrize("argument", [("--aligner", "file"), ("--reverse_links",)])
def test_links_of_a_file_that_is_not_named(parse, argument):
    pairs = ("--language", "hi", "--parallel_file", "p.tsv", "--eval_languages", "en")
    tracked = ("--track_alignment_every", "5", "--tracking_file", "t.tsv", "--tracking_links_file", "t.links")
    for others in (("--continual",), ("--track_alignment_every", "5")):
        with pytest.raises(InputError, match=f"{argument[0]} .*--links_file"):
            parse("ner", *pairs, *argument, *others)
    parse("ner", *pairs, *argument, "--continual", "--links_file", "p.links")
    parse("ner", *pairs, *argument, *tracked)


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


ACTIONS = ("do_train", "do_eval", "do_predict")
FILES = {"do_train": "--train_file", "do_eval": "--validation_file", "do_predict": "--test_file"}


@pytest.fixture
def parse_without_action(monkeypatch, tmp_path):
    def parse(*words):
        given = ["--model", tiny.checkpoint(tmp_path / "model"), "--output_dir", str(tmp_path / "out"), "--use_cpu"]
        monkeypatch.setattr(sys, "argv", ["run.py", *given, *words])
        return parse_task_arguments("nli", *SCRIPTS["nli"], description=None)

    return parse


def done(args) -> list[str]:
    return [name for name in ACTIONS if getattr(args.training, name)]


@pytest.mark.parametrize("number", range(8))
def test_without_an_action_only_what_files_are_for(parse_without_action, number):
    """Files alone do not ask for the usual data set; a data set that is named does."""
    wanted = [name for k, name in enumerate(ACTIONS) if number >> k & 1]
    files = [word for name in wanted for word in (FILES[name], f"{name}.jsonl")]
    languages = ("--eval_languages", "en")
    assert done(parse_without_action(*files, *languages)) == (wanted or list(ACTIONS))
    for name in ("--dataset_name", "--eval_dataset_name"):
        assert done(parse_without_action(*files, *languages, name, "data/nli")) == list(ACTIONS)
    assert done(parse_without_action(*files, *languages, *(f"--{name}" for name in ACTIONS))) == list(ACTIONS)


@pytest.mark.parametrize(
    ("argument", "action"),
    [("--validation_file en=x", "do_eval"), ("--test_file en=x", "do_predict")],
)
def test_data_that_would_not_be_read_is_refused(parse_without_action, argument, action):
    words = (*argument.split(), "--eval_languages", "en")
    for others in [["--do_train"], [f"--{name}" for name in ACTIONS if name != action]]:
        with pytest.raises(InputError, match=f"{words[0]} has no effect without --{action}"):
            parse_without_action(*words, *others)
    assert done(parse_without_action(*words, f"--{action}")) == [action]
    limits = ("--max_eval_samples", "3", "--max_predict_samples", "3")  # may stand in settings of many runs
    assert done(parse_without_action("--do_train", "--eval_languages", "en", *limits)) == ["do_train"]


@pytest.mark.parametrize("name", ["lr=1/dev.json", "hi=x", "a/lr=1/dev=2.json", "=", "runs=dev.json"])
def test_a_path_with_an_equals_sign_names_no_language(monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / name).touch()
    for path in (name, str(tmp_path / name)):
        data = run_nli.NliDataArguments(validation_file=[path])
        data.assume_languages(["sw"])
        assert data.eval_languages == ["en", "sw"]
        data = run_nli.NliDataArguments(validation_file=[f"ru={path}", f"hi={path}"])
        data.assume_languages(["sw"])
        assert data.eval_languages == ["ru", "hi"]
        assert files_by_source([f"hi={path}"], ["hi-Latn"], ["hi-Latn"])[-1] == f"hi-Latn={path}"
