"""The task scripts on a tiny model and the embedded samples."""

from pathlib import Path

import pytest

import run_ner
import run_nli
import run_pawsx
import run_pos
import run_qa
from helpers.paths import DATA


SCRIPTS = {"nli": run_nli, "ner": run_ner, "qa": run_qa, "pos": run_pos, "pawsx": run_pawsx}
# Every kind of head and of score; the other tasks share their code.
KINDS = ("nli", "ner", "qa")
QUICK = ("--use_cpu", "--disable_tqdm", "true", "--per_device_train_batch_size", "8", "--logging_steps", "1",
         "--save_strategy", "no")  # fmt: skip
SHORT = {
    **dict.fromkeys(SCRIPTS, ()),
    "qa": ("--max_seq_length", "60", "--doc_stride", "20", "--max_question_length", "12"),
}
CONTINUAL = ("--continual", "--language", "hi", "--parallel_dataset", DATA / "parallel", "--aligner", "dictionary",
             "--alignment_batch_size", "4")  # fmt: skip


@pytest.fixture
def words(tmp_path) -> Path:
    """A dictionary that links a few words of data/parallel."""
    path = tmp_path / "words.txt"
    path.write_text("और and\nमें in\nहै is\nने the\nसे from\nका of\nको to\n", encoding="utf-8")
    return path


@pytest.fixture
def fine_tune(run, tmp_path, model, words):
    """Run a script with what every run needs; later arguments win."""

    def run_it(task, *arguments, output="out"):
        given = [str(argument) for argument in arguments]
        names = [] if "--model" in given else ["--model", model]
        files = {"--train_file", "--dataset_name"} & set(given)
        data = [] if files else ["--dataset_name", DATA / task]
        dictionary = ["--dictionary_file", words] if "dictionary" in given else []
        out = tmp_path / output
        run(SCRIPTS[task].main, *names, *data, *dictionary, "--output_dir", out, *QUICK, *SHORT[task], *given)
        return out

    return run_it
