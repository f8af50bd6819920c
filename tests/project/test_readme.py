"""What the README shows can be done."""

import re
import shlex

import pytest
from datasets import Dataset
from transformers import TrainingArguments

import compare_runs
import replicate
import run_align
import run_distances
import run_ner
import run_nli
import run_qa
import run_xsr
from benchmarks import compare_aligners
from helpers import tiny
from helpers.pairs import some_pairs
from helpers.paths import PROJECT


README = (PROJECT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(tmp_path, monkeypatch):
    adjusting, continual = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    folder = tiny.checkpoint(tmp_path / "encoder")
    monkeypatch.chdir(tmp_path)
    names = {"pairs": some_pairs(8)}

    def execute(example):
        example = example.replace("google-bert/bert-base-multilingual-cased", folder)
        example = example.replace('"adjusted"', '"adjusted", use_cpu=True, max_steps=1')
        exec(compile(example, "README.md", "exec"), names)
        assert names.pop("trainer").state.global_step == 1

    execute(adjusting)
    # What the second example takes for granted.
    names["model"] = tiny.model("Bert", "ForSequenceClassification", num_labels=2)
    names["args"] = TrainingArguments("mine", use_cpu=True, max_steps=1)
    encoded = names["tokenizer"](tiny.TEXT)["input_ids"]
    names["task"] = Dataset.from_dict({"input_ids": encoded, "labels": [k % 2 for k in range(len(encoded))]})
    assert len([line for line in continual.split("original =")[1].splitlines() if line]) <= 10
    execute(continual)


def test_every_argument_that_is_shown_exists(run, capsys):
    """No flag in the README that a script does not know."""
    for script in (
        compare_runs,
        replicate,
        run_align,
        run_distances,
        run_nli,
        run_ner,
        run_qa,
        run_xsr,
        compare_aligners,
    ):
        with pytest.raises(SystemExit) as ending:
            run(script.main, "--help")
        assert ending.value.code == 0
    known = capsys.readouterr().out
    used = set(re.findall(r"(?<![\w-])--[a-z0-9_]+", README.replace("pip install", "")))
    assert len(used) > 20
    assert {flag for flag in used if not re.search(rf"{flag}\b", known)} == set()


def test_every_make_target_that_is_shown_exists():
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_file_that_is_shown_exists():
    for name in set(re.findall(r"`((?:utils|data|tests|benchmarks|docs)/[\w./-]*|run_\w+\.py)`", README)):
        assert (PROJECT / name).exists(), name


def test_commands_parse():
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            shlex.split(line, comments=True)


def test_nothing_is_left_to_fill_in():
    assert not re.findall(r"\b(?!HF_)[A-Z]+_[A-Z]+\b|TODO|XXX", README)
    for page in (PROJECT / "docs").glob("*.md"):
        assert not re.findall(r"^[A-Z]+_[A-Z]+|TODO|XXX", page.read_text(encoding="utf-8"), re.MULTILINE), page
