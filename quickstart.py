#!/usr/bin/env python
"""The whole story on a laptop, without the Hub: adjust a small encoder in two ways and see what it finds better.

    make quickstart

Runs the ordinary scripts, as you would type them, on the embedded sentences (data/parallel, data/xsr) and a small
encoder (data/sample_model.py), and puts what came out into one table.
"""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import mean

from data.sample_model import LAYERS, sample_model
from utils.core.errors import run_script
from utils.models.layers import usual_layer


LANGUAGES = ("es", "ru", "vi", "hi")
RUNS = Path("runs", "quickstart")
WAYS = ([f"{language}-en" for language in LANGUAGES], [f"en-{language}" for language in LANGUAGES])
LAYER = usual_layer(LAYERS)
FOLDER = Path(__file__).resolve().parent
MODELS = {
    "original": "the encoder as it came",
    "mse": "adjusted by the paper's squared error",
    "contrastive": "adjusted contrastively",
}
# 1,200 pairs are far fewer than the paper's 250,000: several passes make up for some of it.
SETTINGS = ("--num_train_epochs", "3", "--logging_steps", "20", "--save_strategy", "no", "--report_to", "tensorboard")
READING = """\
Words: how often the nearest of all linked words of the other language in the held-out sentences is the very one that a
word is linked with. Sentences: how often the nearest of 100 is the translation. A higher number is a better model;
with 100 sentences a language, differences of a point or two mean nothing."""


def main() -> None:
    model = sample_model()
    held_out = [f"{language}=data/xsr/{language}.jsonl" for language in LANGUAGES]
    links = [f"{language}={RUNS}/held-out.{language}.links" for language in LANGUAGES]
    measure = ["--languages", *LANGUAGES, "--do_eval", "--validation_file", *held_out, "--overwrite_output_dir"]

    say("1. How often does the encoder find a word's translation as it is? (It also links the held-out words, once.)")
    run("run_align.py", "--model", model, *measure, "--write_links", *links, "--output_dir", RUNS / "original")
    for number, objective in enumerate(("mse", "contrastive"), start=2):
        say(f"{number}. And {MODELS[objective]}, in four languages at once?")
        train = ["--do_train", "--parallel_dataset", "data/parallel", "--alignment_objective", objective, *SETTINGS]
        same_links = ["--validation_links_file", *links]
        run("run_align.py", "--model", model, *train, *measure, *same_links, "--output_dir", RUNS / objective)
    say("4. How often does each find the translation of a sentence?")
    models = [model, RUNS / "mse", RUNS / "contrastive"]
    sentences = ["--dataset_name", "data/xsr", "--eval_languages", *LANGUAGES, "--layers", "all"]
    run("run_xsr.py", "--models", *models, *sentences, "--output_dir", RUNS / "xsr", "--overwrite_output_dir")

    say("What came out (per cent, mean of es, ru, vi, hi)")
    print(table(FOLDER / RUNS, {"original": Path(model).name, "mse": "mse", "contrastive": "contrastive"}))
    print(f"\n{READING}\n\nBy layer and language: {RUNS / 'xsr' / 'accuracy_by_layer.png'}")


def say(title: str) -> None:
    print(f"\n\033[1m{title}\033[0m" if sys.stdout.isatty() else f"\n{title}", flush=True)


def run(*words: object) -> None:
    """Show a command and run it. If it fails, so does this script; it has said why."""
    command = [str(word) for word in words]
    print("$ python", shlex.join(command), flush=True)
    if subprocess.run([sys.executable, *command], cwd=FOLDER, env={**os.environ, "HF_HUB_OFFLINE": "1"}).returncode:
        sys.exit(f"{command[0]} failed: see above.")


def table(runs: Path, labels: dict[str, str]) -> str:
    """Word and sentence retrieval of the models in both directions, means over the languages, in Markdown.

    Args:
        runs: folder of the four runs.
        labels: by model, its name among the results of `run_xsr.py`.
    """
    sentences = json.loads((runs / "xsr" / "all_results.json").read_text(encoding="utf-8"))
    lines = [
        "| | words: foreign → English | back | sentences: foreign → English | back |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, description in MODELS.items():
        words = json.loads((runs / name / "all_results.json").read_text(encoding="utf-8"))
        cells = [
            mean(words[f"eval_{direction}_word_retrieval_accuracy"] for direction in directions) for directions in WAYS
        ]
        cells += [
            mean(sentences[f"{labels[name]}/{direction}_layer{LAYER}_accuracy"] for direction in directions)
            for directions in WAYS
        ]
        lines.append(f"| {description} | " + " | ".join(f"{cell:.1%}" for cell in cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
