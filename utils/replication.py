"""The paper's grid as runs of the ordinary scripts: which there are, in what order, and carrying them out.

A grid is adjusted models (a language and a seed each) and, on the original model and on those, every task in several
regimes. What is done is skipped; what was cut off goes on from its last checkpoint.
"""

import fcntl
import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from utils.arguments import is_whole
from utils.errors import InputError
from utils.records import write_json


logger = logging.getLogger("utils.replication")

CODE = Path(__file__).resolve().parent.parent
ENGLISH = "en"

# Regime → whether it begins with an adjusted model, and what it says to the script beside the task's own settings.
ORIGINAL, ADJUSTED = "original", "adjusted"
ADJUSTED_CONTINUAL, ORIGINAL_CONTINUAL = "adjusted+continual", "original+continual"
ABLATION = "adjusted+continual-weight-0"
REGIMES = {
    ORIGINAL: (False, None),
    ADJUSTED: (True, None),
    ADJUSTED_CONTINUAL: (True, {}),
    ORIGINAL_CONTINUAL: (False, {}),
    ABLATION: (True, {"alignment_weight": "0"}),
}
FINE_TUNED = ("nli", "ner", "qa")
TASKS = (*FINE_TUNED, "xsr")

# What `accelerate launch` would otherwise guess, with a warning each time.
_LAUNCH = {"num_processes": "1", "num_machines": "1", "mixed_precision": "no", "dynamo_backend": "no"}
# Weights and checkpoints, which take the room.
_WEIGHTS = ("model*.safetensors", "model.safetensors.index.json", "adapter_model.safetensors", "checkpoint-*")


# --- The grid ----------------------------------------------------------------------------------------------------


@dataclass
class Grid:
    """What is to be run.

    Settings are arguments of the scripts by name. A value that is a mapping is by language: of it goes to a script what is
    of the languages that it is about, as `LANGUAGE=VALUE`.

    Attributes:
        model_name_or_path: the original model.
        languages: that it is adjusted to.
        seeds: of adjustment and fine-tuning.
        tasks: of `TASKS`.
        regimes: of `REGIMES`.
        joint: have one model adjusted to all languages at once, instead of one for each.
        cross_lingual: languages for which questions are also asked across English and them.
        parallel: settings about parallel pairs and links, for adjustment, continual learning and distances.
        align, continual, distances: further settings of these; without `distances` none are measured.
        task_settings: of the script of every task.
        launch: of `accelerate launch`.
    """

    model_name_or_path: str
    languages: list[str]
    seeds: list[int]
    tasks: list[str]
    regimes: list[str]
    joint: bool = False
    cross_lingual: list[str] = field(default_factory=list)
    parallel: dict[str, Any] = field(default_factory=dict)
    align: dict[str, Any] = field(default_factory=dict)
    continual: dict[str, Any] = field(default_factory=dict)
    distances: dict[str, Any] | None = None
    task_settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    launch: dict[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """A run of a script.

    Attributes:
        name: its folder among the outputs.
        script: its file.
        arguments: what it is told, without its output folder. `{NAME}` stands for the folder of another run.
        needs: names of the runs that must be done before.
        task: one of `TASKS`, or `align` or `distances`.
        regime, language, seed: which cell of the grid it is for; None where it is for all.
    """

    name: str
    script: str
    arguments: list[str]
    needs: list[str]
    task: str
    regime: str | None = None
    language: str | None = None
    seed: int | None = None


def plan(grid: Grid) -> list[Run]:
    """All runs of a grid, those that are needed before those that need them; a whole seed before the next one."""
    runs = []
    for seed in grid.seeds:
        if any(REGIMES[regime][0] for regime in grid.regimes):
            runs += [_adjustment(grid, language, seed) for language in _adjusted_to(grid)]
        for task in grid.tasks:
            if task in FINE_TUNED:
                runs += _fine_tunings(grid, task, seed)
    if "xsr" in grid.tasks:
        runs += [_retrieval(grid, language) for language in grid.languages]
    if grid.distances is not None:
        runs += [_distances(grid, language) for language in grid.languages]
    return runs


def _adjusted_to(grid: Grid) -> list[str | None]:
    """The language of every adjusted model of a seed; None: all of them."""
    return [None] if grid.joint else list(grid.languages)


def _about(grid: Grid, language: str | None) -> list[str]:
    return grid.languages if language is None else [language]


def _adjusted(grid: Grid, language: str | None, seed: int) -> str:
    return f"align/{'joint' if grid.joint else language}-seed{seed}"


def _adjustment(grid: Grid, language: str | None, seed: int) -> Run:
    settings = {"save_total_limit": 1, **grid.parallel, **grid.align}
    languages = _about(grid, language)
    arguments = ["--model_name_or_path", grid.model_name_or_path, "--languages", *languages, "--do_train"]
    arguments += _words(settings, languages)
    return Run(_adjusted(grid, language, seed), "run_align.py", [*arguments, "--seed", str(seed)], [], "align", None, language, seed)  # fmt: skip


def _fine_tunings(grid: Grid, task: str, seed: int) -> Iterator[Run]:
    """A run for every regime and language; one for all languages where nothing depends on them."""
    for regime in grid.regimes:
        begins_adjusted, continual = REGIMES[regime]
        for language in [None] if regime == ORIGINAL else _adjusted_to(grid):
            about = _about(grid, language)
            needs = [_adjusted(grid, language, seed)] if begins_adjusted else []
            model = f"{{{needs[0]}}}" if needs else grid.model_name_or_path
            settings = {"save_total_limit": 1, **grid.task_settings.get(task, {})}
            if continual is not None:
                settings |= {
                    "continual": "true",
                    "languages": about,
                    **grid.parallel,
                    **grid.continual,
                    **continual,
                }
            arguments = ["--model_name_or_path", model, "--do_train", *_sets(grid, task, about)]
            arguments += [*_words(settings, [ENGLISH, *about]), "--seed", str(seed)]
            name = f"{task}/{'-'.join(filter(None, (regime, language)))}-seed{seed}"
            yield Run(name, f"run_{task}.py", arguments, needs, task, regime, language, seed)


def _sets(grid: Grid, task: str, languages: Sequence[str]) -> list[str]:
    """What a task is measured on: English, the languages, and for questions the languages across."""
    if task != "qa":
        return ["--eval_languages", ENGLISH, *languages]
    across = [pair for one in languages if one in grid.cross_lingual for pair in (f"{one}-en", f"en-{one}")]
    return ["--language_pairs", *(f"{one}-{one}" for one in (ENGLISH, *languages)), *across]


def _retrieval(grid: Grid, language: str) -> Run:
    needs = [_adjusted(grid, language, seed) for seed in grid.seeds] if ADJUSTED in grid.regimes else []
    models = [grid.model_name_or_path, *(f"{{{name}}}" for name in needs)]
    arguments = ["--models", *models, "--eval_languages", language]
    arguments += _words(grid.task_settings.get("xsr", {}), [language])
    return Run(f"xsr/{language}", "run_xsr.py", arguments, needs, "xsr", None, language)


def _distances(grid: Grid, language: str) -> Run:
    """Of the original and the adjusted model, and of what fine-tuning for the first task makes of them, by the first seed."""
    seed, task = grid.seeds[0], next((task for task in grid.tasks if task in FINE_TUNED), None)
    needs = [_adjusted(grid, language, seed)] if ADJUSTED in grid.regimes else []
    if task:
        needs += [run.name for run in _fine_tunings(grid, task, seed) if run.language in (None, language)]
    models = [grid.model_name_or_path, *(f"{{{name}}}" for name in needs)]
    arguments = ["--models", *models, "--languages", language]
    arguments += _words({**grid.parallel, **grid.distances}, [language])
    return Run(f"distances/{language}", "run_distances.py", arguments, needs, "distances", None, language)


def _words(settings: Mapping[str, Any], languages: Sequence[str]) -> list[str]:
    """Settings as they would be typed."""
    words = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            value = [f"{language}={value[language]}" for language in languages if language in value]
        values = value if isinstance(value, list) else [value]
        if values and values[0] not in (None, "", "~", "null"):
            words += [f"--{name}", *map(str, values)]
    return words


# --- A run as a command ------------------------------------------------------------------------------------------


def command(run: Run, grid: Grid, output_dir: Path, n_threads: int | None = None) -> list[str]:
    """The words that start a run, or let it go on from its last checkpoint.

    Args:
        run, grid: which.
        output_dir: of the whole grid.
        n_threads: of each process on a CPU.
    """
    launch = {**_LAUNCH, **grid.launch}
    if n_threads:
        launch.setdefault("num_cpu_threads_per_process", str(n_threads))
    folder = output_dir / run.name
    words = [
        str(output_dir / word[1:-1]) if word[:1] == "{" and word[1:-1] in run.needs else word for word in run.arguments
    ]
    words += ["--output_dir", str(folder), "--overwrite_output_dir"]
    if any(is_whole(checkpoint) for checkpoint in folder.glob("checkpoint-*")):
        words += ["--resume_from_checkpoint", "true"]
    return [sys.executable, "-m", "accelerate.commands.launch", *_words(launch, []), str(CODE / run.script), *words]


def as_typed(words: Sequence[str]) -> str:
    """A command as a user would type it."""
    return f"accelerate launch {shlex.join(words[3:])}".replace(f"{CODE}{os.sep}", "")


# --- What is done ------------------------------------------------------------------------------------------------


def check_done(run: Run, output_dir: Path) -> bool:
    """Whether a run is done already.

    Raises:
        InputError: if it was done, or begun, with other settings, so that its results would not be those of this grid.
    """
    mark = _mark(run, output_dir)
    try:
        made_by = json.loads(mark.read_text(encoding="utf-8"))
        before, done = made_by["arguments"], made_by["done"]
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"The file {mark} is damaged; remove its folder to have the run done again.") from None
    if before != run.arguments:
        raise InputError(
            f"The run {output_dir / run.name} was made with other settings ({_difference(before, run.arguments)}); choose "
            "another --output_dir, or remove that folder to have it run again."
        )
    return done


def _write_mark(run: Run, output_dir: Path, done: bool) -> None:
    write_json(_mark(run, output_dir), {"arguments": run.arguments, "done": done})


def _difference(before: Sequence[str], now: Sequence[str]) -> str:
    here = next((k for k, (one, other) in enumerate(zip(before, now)) if one != other), min(len(before), len(now)))
    begin = max((k for k in range(here + 1) if k < len(now) and now[k].startswith("--")), default=0)
    return f"then: {' '.join(before[begin : here + 1])}, now: {' '.join(now[begin : here + 1])}"


def _mark(run: Run, output_dir: Path) -> Path:
    return output_dir / run.name / "replicate.json"


def _drop_weights(run: Run, output_dir: Path) -> None:
    """Remove what nothing needs any more. Results, predictions, records, figures stay."""
    for pattern in _WEIGHTS:
        for path in (output_dir / run.name).glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def drop_weights_not_needed(runs: Sequence[Run], done: Mapping[str, object], output_dir: Path) -> None:
    """Remove the weights of fine-tuned models that are measured, and that no run to come is about (one that failed comes again)."""
    needed = {name for run in runs if run.name not in done for name in run.needs}
    for run in runs:
        if run.task in FINE_TUNED and run.name in done and run.name not in needed:
            _drop_weights(run, output_dir)


# --- Carrying out ------------------------------------------------------------------------------------------------


@contextmanager
def alone_in(output_dir: Path) -> Iterator[int]:
    """Wait until no other process works in a folder; gives the file that says so, for the runs to hold as well.

    A run that outlives us (we were killed) holds it until it ends, so that no two write to one folder.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    with open(output_dir / ".lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning(f"Another replicate.py, or a run that it has left behind, works in {output_dir}; waiting.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


@dataclass
class _Started:
    run: Run
    process: subprocess.Popen
    begin: float
    slot: int


def carry_out(
    runs: Sequence[Run], grid: Grid, output_dir: Path, n_jobs: int = 1, keep_models: bool = False
) -> dict[str, str]:
    """Start all runs that are not done, each in processes of its own; what fails does not stop the others.

    Args:
        runs: as `plan` gives them.
        grid: for how they are launched.
        output_dir: of the whole grid; what a run prints is in its folder `logs`.
        n_jobs: runs at a time. The cores are shared out among them; each has a GPU of its own if there are several.
        keep_models: also keep the weights of fine-tuned models when all is measured.

    Returns:
        Name → why it failed, or was not started.

    Raises:
        InputError: if a run is done already, but with other settings.
        KeyboardInterrupt: after the runs that were started have saved a checkpoint.
    """
    done = {run.name: None for run in runs if check_done(run, output_dir)}
    waiting = [run for run in runs if run.name not in done]
    failed: dict[str, str] = {}
    started: list[_Started] = []
    bar = tqdm(total=len(runs), initial=len(done), unit="run", disable=None)
    with alone_in(output_dir) as lock, bar:
        try:
            while waiting or started:
                for run in [one for one in waiting if any(name in failed for name in one.needs)]:
                    waiting.remove(run)
                    failed[run.name] = (
                        f"not started, since {next(name for name in run.needs if name in failed)} failed"
                    )
                    bar.update()
                ready = [run for run in waiting if all(name in done for name in run.needs)]
                for run in ready[: n_jobs - len(started)]:
                    waiting.remove(run)
                    slot = min(set(range(n_jobs)) - {one.slot for one in started})
                    started.append(_start(run, grid, output_dir, n_jobs, slot, lock))
                for one in [one for one in started if one.process.poll() is not None]:
                    started.remove(one)
                    if why := _finish(one, output_dir):
                        failed[one.run.name] = why
                    else:
                        done[one.run.name] = None
                    if not keep_models:
                        drop_weights_not_needed(runs, done, output_dir)
                    bar.update()
                    seconds = time.monotonic() - one.begin
                    bar.write(f"{one.run.name}: {why or f'done in {seconds:,.0f} s'}", file=sys.stderr)
                time.sleep(0.1)
        except BaseException:
            _stop([one.process for one in started])
            raise
    return failed


def _start(run: Run, grid: Grid, output_dir: Path, n_jobs: int, slot: int, lock: int) -> _Started:
    environment = dict(os.environ)
    processes = int(grid.launch.get("num_processes", 1))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, cores // (n_jobs * processes))
    if n_jobs > 1 and processes == 1 and (n_gpus := torch.cuda.device_count()):
        visible = environment.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(n_gpus)))
        environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[slot % n_gpus]
    words = command(run, grid, output_dir, threads)
    _write_mark(run, output_dir, done=False)  # (so that nobody lets it go on with other settings)
    path = _log(run, output_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as log:
        log.write(f"$ {as_typed(words)}\n")
        log.flush()
        # (In a session of its own: Ctrl-C reaches us alone, and we tell the run.)
        process = subprocess.Popen(
            words, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True, pass_fds=[lock]
        )
    return _Started(run, process, time.monotonic(), slot)


def _finish(one: _Started, output_dir: Path) -> str | None:
    """Mark a run as done; or say why it failed."""
    if one.process.returncode:
        path = _log(one.run, output_dir)
        said = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        errors = [line for line in said if line.startswith("error: ")]
        return f"failed with status {one.process.returncode}: {(errors or said or ['(silent)'])[-1]} (see {path})"
    _write_mark(one.run, output_dir, done=True)
    for checkpoint in (output_dir / one.run.name).glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    return None


def _log(run: Run, output_dir: Path) -> Path:
    return output_dir / "logs" / f"{run.name.replace('/', '.')}.log"


def _stop(processes: Sequence[subprocess.Popen]) -> None:
    """Tell runs to stop, which they do after saving a checkpoint, and wait until none of their processes is left."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    end = time.monotonic() + 120
    while time.monotonic() < end and any(_signal(process, 0) for process in processes):
        for process in processes:
            process.poll()
        time.sleep(0.1)
    for process in processes:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen, number: int) -> bool:
    """Send a signal to all processes of a run; whether there were any."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True
