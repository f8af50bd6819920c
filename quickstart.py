#!/usr/bin/env python
"""Adjust a small encoder in two ways on a laptop, without the Hub, and show the gain.

    make quickstart

Runs the scripts of this repository as you would type them, on the embedded sentences (data/parallel, data/xsr) and a small
encoder (data/sample_model.py), and prints one table of their results: means over four languages that the encoder knows,
and Hindi in Latin letters, which it can hardly read.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import mean

from data.sample_model import LAYERS, sample_model
from utils.core.errors import run_script
from utils.core.next_steps import PART_OF_SERIES, command, say_next
from utils.core.result_tables import ResultTable
from utils.models.layers import usual_layer


LANGUAGES = ("es", "ru", "vi", "hi")
# Hindi in Latin letters, which the encoder does not read. The words are those of hi, so that their links are the same.
UNREAD = "hi-Latn"
FOLDER = Path(__file__).resolve().parent
RUNS = Path("runs", "quickstart")  # in FOLDER
MODELS = {"original": "original encoder", "mse": "adjusted, squared error", "contrastive": "adjusted, contrastive"}
# With 1,500 pairs instead of the paper's 250,000, several epochs make up for some of the difference.
SETTINGS = (
    "--num_train_epochs",
    "2.5",
    "--logging_steps",
    "20",
    "--save_strategy",
    "no",
    "--report_to",
    "tensorboard",
)
EXPLANATION = """\
Percent, means over es, ru, vi and hi; then Hindi in Latin letters. Words: how often the nearest of all linked words of the
other language, in 100 held-out sentences, is the word that it is linked with. Sentences: how often the nearest of 100 is
the translation. With 100 sentences per language, differences of a few points mean nothing."""


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()

    # --- Data: 300 pairs per language to adjust, 100 held-out pairs to measure ---
    languages = [*LANGUAGES, UNREAD]
    model = sample_model()

    step("1. Link the words of all pairs by the original encoder, once for all models")
    links = {
        part: [f"{language}={RUNS}/{part}.{language}.links" for language in LANGUAGES] for part in ("parallel", "xsr")
    }
    for part, written in links.items():
        files = [f"{language}=data/{part}/{language}.jsonl" for language in LANGUAGES]
        link = ["--languages", *LANGUAGES, "--do_eval", "--validation_file", *files, "--write_links", *written]
        run("run_align.py", "--model", model, *link, "--overwrite_output_dir", "--output_dir", RUNS / "links")
        written.append(f"{UNREAD}={RUNS}/{part}.hi.links")

    step("2. Measure the original encoder, also in Hindi in Latin letters")
    held_out = [f"{language}=data/xsr/{language}.jsonl" for language in languages]
    measure = [
        "--languages",
        *languages,
        "--do_eval",
        "--validation_file",
        *held_out,
        "--validation_links_file",
        *links["xsr"],
    ]
    run("run_align.py", "--model", model, *measure, "--overwrite_output_dir", "--output_dir", RUNS / "original")

    for number, objective in enumerate(("mse", "contrastive"), start=3):
        step(f"{number}. Adjust it to all five at once, and measure again: {MODELS[objective]}")
        train = ["--do_train", "--parallel_dataset", "data/parallel", "--links_file", *links["parallel"], *SETTINGS]
        train += ["--alignment_objective", objective, "--overwrite_output_dir", "--output_dir", str(RUNS / objective)]
        run("run_align.py", "--model", model, *train, *measure)

    step("5. Measure sentence retrieval of all three")
    models = [model, RUNS / "mse", RUNS / "contrastive"]
    sentences = ["--dataset_name", "data/xsr", "--eval_languages", *languages, "--layers", "all"]
    run("run_xsr.py", "--models", *models, *sentences, "--output_dir", RUNS / "xsr", "--overwrite_output_dir")

    step("Results")
    labels = {"original": Path(model).name, "mse": "mse", "contrastive": "contrastive"}
    print(results(FOLDER / RUNS, labels).markdown())
    print(f"\n{EXPLANATION}\n\nBy layer and language: {RUNS / 'xsr' / 'accuracy_by_layer.png'}")
    say_next(command("run_align", "--language", "hi"), command("replicate", "replicate-small.yaml"))


def step(title: str) -> None:
    print(f"\n\033[1m{title}\033[0m" if sys.stdout.isatty() else f"\n{title}", flush=True)


def run(*words: object) -> None:
    """Show a command and run it; if it fails, stop (it has printed the reason)."""
    command = [str(word) for word in words]
    print("$ python", shlex.join(command), flush=True)
    if subprocess.run(
        [sys.executable, *command], cwd=FOLDER, env={**os.environ, "HF_HUB_OFFLINE": "1", PART_OF_SERIES: "1"}
    ).returncode:
        sys.exit(f"{command[0]} failed, see above.")


def results(runs: Path, labels: dict[str, str]) -> ResultTable:
    """Word and sentence retrieval in percent, in both directions: means over `LANGUAGES`, then `UNREAD`.

    `runs` is the folder of the four runs; `labels` gives each model's name in the results of `run_xsr.py`.
    """
    sentences = json.loads((runs / "xsr" / "all_results.json").read_text(encoding="utf-8"))
    rows = []
    for title, languages in (("", LANGUAGES), (f"{UNREAD}: ", (UNREAD,))):
        directions = [[f"{name}-en" for name in languages], [f"en-{name}" for name in languages]]
        for name, description in MODELS.items():
            words = json.loads((runs / name / "all_results.json").read_text(encoding="utf-8"))
            sentence_key = f"{labels[name]}/{{}}_layer{usual_layer(LAYERS)}_accuracy"
            row = [title + description]
            for found, key in ((words, "eval_{}_word_retrieval_accuracy"), (sentences, sentence_key)):
                for ways in directions:
                    row.append(f"{100 * mean(found[key.format(way)] for way in ways):.1f}")
            rows.append(row)
    into_out_of = ("foreign → English", "English → foreign")
    return ResultTable(["", *(f"{what}: {way}" for what in ("words", "sentences") for way in into_out_of)], rows)


if __name__ == "__main__":
    run_script(main)
