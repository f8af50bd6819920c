"""The last lines of a script: where everything is, and what to run next, as commands that can be copied."""

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from typing import TypeAlias

from utils.core.kept_help import CODE
from utils.core.redaction import redact


# What a folder of results may hold, and what it is.
_CONTENT = {
    "model*.safetensors": "model",
    "adapter_model.safetensors": "adapter",
    "README.md": "model card",
    "report.html": "report",
    "report.md": "report",
    "comparison.*": "comparison",
    "*.runs.jsonl.gz": "all runs, for compare_runs.py",
    "all_results.json": "results",
    "predictions": "predictions of every example",
    "distances.arrow": "distances",
    "*.png": "figures",
    "run.json": "settings",
}
# Started by `accelerate launch`, which finds all GPUs.
_LAUNCHED = ("run_ner", "run_nli", "run_pawsx", "run_pos", "run_qa")
# Arguments that belong to a single run.
_OF_ONE_RUN = frozenset(
    {"model", "model_name_or_path", "output_dir", "overwrite_output_dir", "resume_from_checkpoint", "push_to_hub",
     "hub_model_id", "hub_token", "token", "baseline_run"}
)  # fmt: skip

# The environment variable by which a script tells those that it starts that it knows what comes next.
PART_OF_SERIES = "PART_OF_SERIES"

Command: TypeAlias = Sequence[object]


def say_where(folder: str | Path, *commands: Command) -> None:
    """Print what is in a folder of results, and the commands that could come next."""
    found: dict[str, list[str]] = {}
    for pattern, what in _CONTENT.items():
        found.setdefault(what, []).extend(path.name for path in sorted(Path(folder).glob(pattern)))
    listed = "; ".join(f"{what}: {_some(names)}" for what, names in found.items() if names)
    print(f"\nIn {folder}: {listed}.")
    say_next(*commands)


def say_next(*commands: Command) -> None:
    """Print the commands that could come next, if there are any, and if no other script has started this one."""
    if commands and not os.environ.get(PART_OF_SERIES):
        print("Next:", *map(as_typed, commands), sep="\n  ")


def _some(names: Sequence[str]) -> str:
    return " ".join(names) if len(names) < 5 else f"{names[0]} … {names[-1]}"


def command(script: str, *words: object) -> list[str]:
    """The words that start a script of this project in the present folder."""
    path = CODE / f"{script}.py"
    path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return [*(["accelerate", "launch"] if script in _LAUNCHED else ["python"]), *map(str, (path, *words))]


def same_command(script: str, model: str, output_dir: str, *others: object) -> list[str]:
    """The command of this run of a script for another model and output folder, with other arguments added."""
    kept, words = True, []
    for word in sys.argv[1:]:
        if word.startswith("--"):
            kept = word[2:].partition("=")[0].replace("-", "_") not in _OF_ONE_RUN
        words += [word] if kept else []
    return command(script, *words, "--model", model, "--output_dir", output_dir, *others)


def free_folder(folder: str | Path) -> str:
    """The name of a folder that holds nothing: this one, or it with a number. A command must not write over an earlier run."""
    names = chain([str(folder)], (f"{folder}-{number}" for number in count(2)))
    return next(name for name in names if not os.path.exists(name) or (os.path.isdir(name) and not os.listdir(name)))


def as_typed(words: Command) -> str:
    """A command for the terminal of this system, without secrets."""
    texts = [redact(str(word)) for word in words]
    return subprocess.list2cmdline(texts) if os.name == "nt" else shlex.join(texts)
