#!/usr/bin/env python
"""The whole story on a laptop, without the Hub: adjust a small encoder in two ways and see what it finds better.

    make quickstart

Runs the ordinary scripts, as you would type them, on the embedded sentences (data/parallel, data/xsr) and a small
encoder (utils/sample_model.py), and puts what came out into one table.
"""

import json
import shlex
import subprocess
import sys
from pathlib import Path

from utils.records import write_text
from utils.sample_model import sample_model


LANGUAGES = ("es", "ru", "vi", "hi")
RUNS = Path("runs/quickstart")
FOLDER = Path(__file__).resolve().parent
# 1,200 pairs are a small fraction of the paper's 250,000: more passes and a higher rate make up for some of it.
SETTINGS = ["--num_train_epochs", "5", "--logging_steps", "20", "--save_strategy", "no"]
STORIES = {
    "original": "the encoder as it came",
    "mse": "adjusted by the paper's squared error",
    "contrastive": "adjusted contrastively",
}


def main() -> None:
    model = Path(sample_model())
    held_out = [f"{language}=data/xsr/{language}.jsonl" for language in LANGUAGES]
    links = [f"{language}={RUNS}/held-out.{language}.links" for language in LANGUAGES]
    measure = ["--languages", *LANGUAGES, "--validation_file", *held_out, "--do_eval", "--overwrite_output_dir"]

    say("1. How often does the original find a word's translation?")
    run("run_align.py", "--model", model, *measure, "--write_links", *links, "--output_dir", RUNS / "original")

    for number, objective in enumerate(("mse", "contrastive"), start=2):
        say(f"{number}. The same encoder, {STORIES[objective]}")
        measured_by = ["--validation_links_file", *links, "--output_dir", RUNS / objective]
        data = ["--parallel_dataset", "data/parallel", "--do_train", "--alignment_objective", objective]
        run("run_align.py", "--model", model, *data, *SETTINGS, *measure, *measured_by)

    say("4. How often does each find the translation of a whole sentence?")
    models = [model, RUNS / "mse", RUNS / "contrastive"]
    xsr = ["--dataset_name", "data/xsr", "--eval_languages", *LANGUAGES, "--layers", "all", "--overwrite_output_dir"]
    run("run_xsr.py", "--models", *models, *xsr, "--output_dir", RUNS / "xsr")

    say("What came out")
    print(table([model.name, "mse", "contrastive"]))


def say(title: str) -> None:
    print(f"\n\033[1m{title}\033[0m" if sys.stdout.isatty() else f"\n{title}", flush=True)


def run(*words: object) -> None:
    """Show a command and run it; its failure is ours."""
    command = [str(word) for word in words]
    print("$ python", shlex.join(command), flush=True)
    subprocess.run([sys.executable, *command], cwd=FOLDER, check=True)


def table(labels: list[str]) -> str:
    """Word and sentence retrieval of the three models, means over the languages, as a Markdown table."""
    ...


if __name__ == "__main__":
    main()
