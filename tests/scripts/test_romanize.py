"""--romanize through the scripts that train: adjustment, and a task with and without --continual."""

import json
import re

import pytest

import run_align
from helpers.paths import DATA
from helpers.task_scripts import CONTINUAL, QUICK
from utils.core.errors import InputError


def record(folder) -> dict:
    return json.loads((folder / "run.json").read_text())


def test_adjusting_to_romanized_text(run, model, tmp_path):
    """In place it is another system than with the original text; under a code of its own it has a language more."""
    for output, *languages in (("one", "hi"), ("two", "hi", "hi-Latn")):
        run(run_align.main, "--model", model, "--languages", *languages, "--romanize", languages[-1],
            "--parallel_dataset", DATA / "parallel", "--output_dir", tmp_path / output, "--max_steps", 1, *QUICK)  # fmt: skip
    one, two = record(tmp_path / "one"), record(tmp_path / "two")
    assert (one["variant"], two["variant"]) == (["romanized hi"], [])
    assert one["hyperparameters"]["romanize"] == ["hi"]
    assert set(two["train_data"]) == {"hi", "hi-Latn"}
    assert two["vocabulary"]["hi-Latn"]["unknown_words"] <= two["vocabulary"]["hi"]["unknown_words"]


def test_evaluating_on_romanized_text(fine_tune):
    languages = ("--eval_languages", "en", "hi", "hi-Latn", "--romanize", "hi-Latn")
    out = fine_tune("ner", "--do_train", "--do_eval", *languages, "--max_steps", 1, "--max_eval_samples", 5)
    data = record(out)["eval_data"]
    assert data["hi"]["sha256"] != data["hi-Latn"]["sha256"]
    assert data["hi"]["examples"] == data["hi-Latn"]["examples"] == 5
    assert record(out)["hyperparameters"]["romanize"] == ["hi-Latn"]
    assert "max_words" not in record(out)["hyperparameters"]
    assert re.search(r"\| romanize +\| hi-Latn", (out / "README.md").read_text())
    tags = [[json.loads(line)["gold"] for line in (out / f"predictions/{name}.jsonl").open()] for name in data]
    assert tags[1] == tags[2]


def test_examples_that_are_romanized_in_place_make_another_system(fine_tune):
    short = ("--do_train", "--do_eval", "--max_steps", 1, "--max_train_samples", 8, "--max_eval_samples", 2)
    out = fine_tune("ner", *short, "--few_shot", "hi=2", "--eval_languages", "en", "--romanize", "hi")
    assert record(out)["variant"] == ["few_shot hi=2", "romanized hi"]


def test_answers_are_not_moved_but_pairs_beside_them_may_be(fine_tune, words):
    short = ("--do_train", "--do_eval", "--eval_languages", "en", "--max_steps", 1, "--max_eval_samples", 2)
    words.write_text("aur\tand\nmem\tin\nhai\tis\nne\tthe\n", encoding="utf-8")
    out = fine_tune("qa", *short, *CONTINUAL, "--romanize", "hi")
    assert record(out)["hyperparameters"]["romanize"] == ["hi"]
    with pytest.raises(InputError, match="--romanize hi would move the answers"):
        fine_tune("qa", *short, "--eval_languages", "en", "hi", "--romanize", "hi", output="refused")
