"""Scripts in processes of their own, forked from a server that has imported the libraries once: seconds less for each."""

import multiprocessing
import os
import runpy
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from helpers.paths import PROJECT


_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["torch", "transformers.trainer", "datasets", "peft", "evaluate", "matplotlib.figure", "scipy.stats"]
)


class ScriptProcess:
    """A script in a process of its own, with the methods of `subprocess.Popen` that tests use.

    Args:
        words: the script's path, and its arguments.
        output: the file that standard output and standard error go to.
        environment: variables to set; the cache of data sets is taken from it.
        cwd: the working directory.
    """

    def __init__(
        self, words: Sequence[object], output: Path, environment: Mapping[str, str] | None = None, cwd: Path = PROJECT
    ) -> None:
        self.output = output
        self._process = _CONTEXT.Process(
            target=_run, args=([str(word) for word in words], str(output), dict(environment or {}), str(cwd))
        )
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float = 300) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            raise TimeoutError(f"{self.output} has the output of a script that did not end in {timeout} s.")
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self.output.read_text(encoding="utf-8") if self.output.exists() else ""


def run_process(
    words: Sequence[object],
    output: Path,
    environment: Mapping[str, str] | None = None,
    cwd: Path = PROJECT,
    n_processes: int = 1,
) -> str:
    """Run a script to its end in one process, or in several that know of each other as `torchrun` starts them.

    Returns:
        What it printed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank in range(n_processes):
        together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(n_processes), "RANK": str(rank),
                    "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(n_processes)}  # fmt: skip
        variables = {**(environment or {}), **(together if n_processes > 1 else {})}
        started.append(ScriptProcess(words, output.with_name(f"{output.name}.{rank}"), variables, cwd))
    codes = [process.wait() for process in started]
    printed = "".join(process.text for process in started)
    assert not any(codes), printed
    return printed


def _run(words: list[str], output: str, environment: dict[str, str], cwd: str) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout.reconfigure(line_buffering=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(environment)
    os.chdir(cwd)
    import datasets
    import torch

    if "HF_DATASETS_CACHE" in environment:  # (which the library has read already)
        datasets.config.HF_DATASETS_CACHE = Path(environment["HF_DATASETS_CACHE"])
    torch.set_num_threads(1)
    sys.argv = words
    sys.path.insert(0, str(Path(words[0]).parent))
    runpy.run_path(words[0], run_name="__main__")
