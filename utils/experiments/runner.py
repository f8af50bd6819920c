"""Carries out the runs of a grid: skips those that are done, resumes interrupted ones from their last checkpoint."""

import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from utils.core.checked_commands import refusals
from utils.core.errors import InputError
from utils.core.files import is_locked, write_text
from utils.core.kept_help import CODE
from utils.core.next_steps import PART_OF_SERIES
from utils.core.progress import progress
from utils.core.redaction import redact
from utils.experiments.grid import Grid
from utils.experiments.marks import WEIGHTS, changed_needs, find_to_do, mark_done
from utils.experiments.plan import LAUNCH, Run, as_words
from utils.tasks.registry import TASKS
from utils.training.whole_checkpoints import step_checkpoints, whole_checkpoints


logger = logging.getLogger(__name__)

# What asks a run to stop, and what ends it. (On Windows, Ctrl-C has reached the runs by itself, and nothing else lets them save
# a checkpoint: there, the first is not a signal.)
_ASK, _KILL = (signal.SIGTERM, signal.SIGKILL) if hasattr(os, "killpg") else (0, signal.SIGTERM)


def command(run: Run, grid: Grid, output_dir: Path, n_threads: int | None = None) -> list[str]:
    """The command, as a list of words, that starts a run with `n_threads` per process, or resumes it from its last checkpoint."""
    threads = {"num_cpu_threads_per_process": str(n_threads)} if n_threads else {}
    launch = {**LAUNCH, **threads, **grid.settings_of("launch")}
    return [sys.executable, "-m", "accelerate.commands.launch", *as_words(launch, []), *_script_words(run, output_dir)]


def _script_words(run: Run, output_dir: Path) -> list[str]:
    """The script of a run, and its arguments."""
    folder = output_dir / run.name
    words = [
        str(output_dir / word[1:-1]) if word[:1] == "{" and word[1:-1] in run.needs else word for word in run.arguments
    ]
    words += ["--output_dir", str(folder), "--overwrite_output_dir"]
    if whole_checkpoints(folder) and not changed_needs(run, output_dir):
        words += ["--resume_from_checkpoint", "true"]
    return [str(CODE / run.script), *words]


def check_commands(runs: Sequence[Run], output_dir: Path) -> None:
    """Raise `InputError` if a script does not know, or cannot read, what the settings say, before hours of other runs."""
    differ = {(run.script, run.task, run.regime, run.language): run for run in reversed(runs)}  # (not in the seed)
    first = list(reversed(differ.values()))
    found = refusals([_script_words(run, output_dir) for run in first]) if first else []
    if refused := next(((run, why) for run, why in zip(first, found) if why), None):
        raise InputError(f"{refused[0].script} cannot run {refused[0].name} with these settings: {refused[1]}")


def as_typed(words: Sequence[str]) -> str:
    """A command for the terminal, without secrets."""
    return f"accelerate launch {shlex.join(redact(words[3:]))}".replace(f"{CODE}{os.sep}", "")


def _drop_weights(runs: Sequence[Run], done: Container[str], output_dir: Path) -> None:
    """Remove the weights of fine-tuned models that no run needs any more. (A run that failed will be repeated.)"""
    needed = {name for run in runs if run.name not in done for name in run.needs}
    for run in runs:
        if run.task in TASKS and run.name in done and run.name not in needed:
            folder = output_dir / run.name
            for path in chain(step_checkpoints(folder), *map(folder.glob, WEIGHTS)):
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


@contextmanager
def alone_in(output_dir: Path) -> Iterator[None]:
    """Lock a folder, after waiting until no other replicate.py works in it.

    (A run that survives a killed replicate.py keeps the lock of its own folder until it ends.)
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output_dir / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning(f"Another replicate.py works in {output_dir}; waiting.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@dataclass
class _Started:
    run: Run
    log: Path
    process: subprocess.Popen
    begin: float
    slot: int


def carry_out(
    runs: Sequence[Run], grid: Grid, output_dir: Path, n_jobs: int = 1, keep_models: bool = False
) -> dict[str, str]:
    """Start all planned runs that are not done, each in its own processes; a run that fails does not stop the others.

    Args:
        output_dir: of the whole grid; its folder `logs` has the output of every run.
        n_jobs: runs at a time. They share the cores; each has its own GPU if there are several.
        keep_models: also keep the weights of fine-tuned models at the end.

    Returns:
        Name → why the run failed, or was not started.

    Raises:
        InputError: if a run was done with other settings.
    """
    failed: dict[str, str] = {}
    started: list[_Started] = []
    # (What is to be done is known when nobody else works here any more.)
    with alone_in(output_dir), _shown(runs, waiting := find_to_do(runs, output_dir)) as bar:
        done = {run.name for run in runs} - {run.name for run in waiting}
        try:
            while waiting or started:
                for run in list(waiting):
                    if needed := next((name for name in run.needs if name in failed), None):
                        waiting.remove(run)
                        failed[run.name] = f"not started, since {needed} failed"
                        bar.update()
                ready = (
                    run for run in waiting if done.issuperset(run.needs) and not _is_at_work(output_dir / run.name)
                )
                for run in list(islice(ready, n_jobs - len(started))):
                    waiting.remove(run)
                    slot = min(set(range(n_jobs)) - {one.slot for one in started})
                    started.append(_start(run, grid, output_dir, n_jobs, slot))
                for one in [one for one in started if one.process.poll() is not None]:
                    started.remove(one)
                    if why := _finish(one, output_dir):
                        failed[one.run.name] = why
                    else:
                        done.add(one.run.name)
                    if not keep_models:
                        _drop_weights(runs, done, output_dir)
                    bar.update()
                    seconds = time.monotonic() - one.begin
                    bar.write(f"{one.run.name}: {why or f'done in {seconds:,.0f} s'}", file=sys.stderr)
                time.sleep(0.1)
        except BaseException:
            _stop([one.process for one in started])
            raise
    return failed


def _shown(runs: Sequence[Run], waiting: Sequence[Run]) -> Any:
    """The progress of a grid, of which some runs are done."""
    return progress(description="Grid", total=len(runs), initial=len(runs) - len(waiting), unit="runs", delay=0)


def _is_at_work(folder: Path) -> bool:
    """Whether a run that a killed replicate.py has left behind still works in a folder; says so once."""
    if locked := is_locked(folder):
        _warn_once(f"A run that was left behind works in {folder}; waiting for it.")
    return locked


_warn_once = cache(logger.warning)


def _start(run: Run, grid: Grid, output_dir: Path, n_jobs: int, slot: int) -> _Started:
    environment = {
        **os.environ,
        PART_OF_SERIES: "1",
        "PYTHONIOENCODING": "utf-8",
        **({"HF_TOKEN": grid.token} if grid.token else {}),
    }
    processes = int(grid.settings_of("launch").get("num_processes", 1))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if n_jobs > 1 and processes == 1 and (n_gpus := _n_gpus()):
        visible = environment.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(n_gpus)))
        environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[slot % n_gpus]
    words = command(run, grid, output_dir, max(1, cores // (n_jobs * processes)))
    if changed := changed_needs(run, output_dir):
        logger.warning(
            f"{run.name} is repeated from the start, since it needs {changed[0]}, which has been made again."
        )
        for checkpoint in step_checkpoints(output_dir / run.name):  # (which go on from the earlier one)
            _remove(checkpoint)
    mark_done(run, output_dir, done=False)  # (so that nobody resumes it with other settings)
    path = output_dir / "logs" / f"{run.name.replace('/', '.')}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8", newline="\n") as log:
        log.write(f"$ {as_typed(words)}\n")
        log.flush()
        # (In its own session: Ctrl-C reaches this process alone, which then signals the run.)
        process = subprocess.Popen(
            words, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    return _Started(run, path, process, time.monotonic(), slot)


@cache
def _n_gpus() -> int:
    import torch  # (which takes long)

    return torch.cuda.device_count()


def _finish(one: _Started, output_dir: Path) -> str | None:
    """Mark a run as done, or return why it failed; secrets are taken out of its log."""
    log = one.log.read_text(encoding="utf-8", errors="replace")
    write_text(one.log, redact(log))
    if one.process.returncode:
        said = [line for line in redact(log).splitlines() if line.strip()]
        errors = [line for line in said if line.startswith("error: ")]
        return f"failed with status {one.process.returncode}: {(errors or said or ['(silent)'])[-1]} (see {one.log})"
    mark_done(one.run, output_dir)
    for checkpoint in step_checkpoints(output_dir / one.run.name):
        _remove(checkpoint)
    return None


def _stop(processes: Sequence[subprocess.Popen]) -> None:
    """Ask runs to stop, which they do after saving a checkpoint, and wait until all their processes have ended."""
    for process in processes:
        _signal(process, _ASK)
    end = time.monotonic() + 120
    while time.monotonic() < end and any(_signal(process, 0) for process in processes):
        for process in processes:
            process.poll()
        time.sleep(0.1)
    for process in processes:
        _signal(process, _KILL)
        process.wait()


def _signal(process: subprocess.Popen, number: int) -> bool:
    """Send a signal to all processes of a run; returns whether there were any."""
    if not hasattr(os, "killpg"):
        if number and process.poll() is None:
            process.terminate()
        return process.poll() is None
    try:
        os.killpg(process.pid, number)
        return True
    except ProcessLookupError:
        return False
