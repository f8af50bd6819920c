"""Scripts in processes of their own, forked from a server that has imported the libraries once: seconds less for each."""

import gc
import importlib
import multiprocessing
import os
import runpy
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from helpers.paths import PROJECT


_CONTEXT = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")
_CONTEXT.set_forkserver_preload(
    ["torch", "transformers.trainer", "datasets", "peft", "evaluate", "matplotlib.figure", "scipy.stats"]
)


class ScriptProcess:
    """A script in a process of its own, with the methods of `subprocess.Popen` that tests use.

    Args:
        words: the script's path, and its arguments.
        output: the file that standard output and standard error go to.
        environment: variables to set. With `HF_HOME` among them (see `hub_environment`) they are all that there are, and the
            libraries of Hugging Face read them again. Otherwise the cache of data sets is taken from them.
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

    def wait_until(self, happened: Callable[[], object], timeout: float = 300) -> None:
        """Wait for something that it does before it ends."""
        end = time.monotonic() + timeout
        while not happened():
            assert self.poll() is None, self.text
            assert time.monotonic() < end, self.text
            time.sleep(0.01)

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


class Forked:
    """A script in a process forked from this one, with the arguments and methods of `subprocess.Popen` that a grid uses.

    Of the words of a command only the script and its arguments count, not the program that launches it.
    """

    def __init__(self, words: Sequence[str], stdout, stderr: int, env: Mapping[str, str], **_: object) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid:
            return
        code: object = 1
        try:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            script = next(k for k, word in enumerate(words) if word.endswith(".py"))
            run_here(words[script:], stdout.fileno(), env)
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            if not isinstance(code, int):
                print(code, file=sys.stderr)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code if isinstance(code, int) else 1)

    def poll(self) -> int | None:
        return self.wait(os.WNOHANG)

    def wait(self, options: int = 0) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


def run_here(words: Sequence[str], output: int, environment: Mapping[str, str]) -> None:
    """Make this process, which is a new one, that of a script; `output` is a file descriptor."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    # (New ones, for those of the server know that they are files, or that they are not.)
    new = partial(open, mode="w", encoding="utf-8", buffering=1, closefd=False)
    sys.stdout, sys.stderr = new(1), new(2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "HF_HOME" in environment:
        os.environ.clear()
    os.environ.update(environment)
    if "HF_HOME" in environment:
        _read_environment_again()
    import datasets
    import torch

    gc.freeze()
    if "HF_DATASETS_CACHE" in environment:  # (which the library has read already)
        datasets.config.HF_DATASETS_CACHE = Path(environment["HF_DATASETS_CACHE"])
    torch.set_num_threads(1)
    sys.argv = list(words)
    sys.path.insert(0, str(Path(words[0]).parent))
    runpy.run_path(words[0], run_name="__main__")


def _run(words: list[str], output: str, environment: dict[str, str], cwd: str) -> None:
    os.chdir(cwd)
    run_here(words, os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), environment)


def _read_environment_again() -> None:
    """The libraries of Hugging Face read the environment when they are imported, and copy the constants around."""
    for name in ("huggingface_hub.constants", "datasets.config"):
        constants = sys.modules[name]
        before = {key: value for key, value in vars(constants).items() if key.isupper()}
        importlib.reload(constants)
        changed = {key for key, value in before.items() if vars(constants)[key] != value}
        for module in list(sys.modules.values()):
            for key in changed & vars(module).keys():
                if vars(module)[key] == before[key]:
                    setattr(module, key, vars(constants)[key])
    from huggingface_hub import constants, hf_api

    hf_api.api.endpoint = constants.ENDPOINT
