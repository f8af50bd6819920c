"""How the benchmarks measure: time, memory, floating-point operations, and what a report says about the machine.

from benchmarks.measuring import PeakMemory, interleaved_medians

seconds = interleaved_medians({"bare": forward, "real": encode}, repeats=5)
"""

import os
import platform
import re
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import torch
from torch import nn
from transformers import PreTrainedModel

from utils.core.files import write_json
from utils.core.records import run_record


# What makers state for dense matrices with accumulation in fp32, in FLOP/s. fp32 is that without TF32.
_PEAK_FLOPS = {
    "B200": {torch.bfloat16: 2250e12, torch.float16: 2250e12, torch.float32: 75e12},
    "H200": {torch.bfloat16: 989e12, torch.float16: 989e12, torch.float32: 67e12},
    "H100 PCIe": {torch.bfloat16: 756e12, torch.float16: 756e12, torch.float32: 51e12},
    "H100": {torch.bfloat16: 989e12, torch.float16: 989e12, torch.float32: 67e12},
    "A100": {torch.bfloat16: 312e12, torch.float16: 312e12, torch.float32: 19.5e12},
    "L40S": {torch.bfloat16: 362e12, torch.float16: 362e12, torch.float32: 91.6e12},
    "L4": {torch.bfloat16: 121e12, torch.float16: 121e12, torch.float32: 30.3e12},
    "A10": {torch.bfloat16: 125e12, torch.float16: 125e12, torch.float32: 31.2e12},
    "T4": {torch.float16: 65e12, torch.float32: 8.1e12},
    "V100": {torch.float16: 125e12, torch.float32: 15.7e12},
}


# --- Time --------------------------------------------------------------------------------------------------------


def synchronize() -> None:
    """Wait until the accelerator, if there is one, has done what it was told."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def seconds_of(function: Callable[[], object]) -> float:
    """How long one call takes, its work on the accelerator included."""
    synchronize()
    begin = time.perf_counter()
    function()
    synchronize()
    return time.perf_counter() - begin


def interleaved_medians(functions: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The median time of each function in seconds, after one call of each that does not count.

    The functions take turns, forwards and backwards, so that other load on the machine affects all equally.

    Args:
        functions: what to time, by name.
        repeats: counted calls of each.
    """
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats):
        order = list(functions) if repeat % 2 == 0 else list(reversed(functions))
        for name in order:
            seconds[name].append(seconds_of(functions[name]))
    return {name: statistics.median(times) for name, times in seconds.items()}


# --- Memory ------------------------------------------------------------------------------------------------------


class PeakMemory:
    """How much memory a block of code needs at most beyond what was in use before, in MB of 10⁶ bytes.

        with PeakMemory(device) as memory:
            work()
        print(memory.growth_mb)

    On a GPU, what torch allocates on it. On a CPU, the memory of this process that no file stands behind, looked at
    every few milliseconds: what lives for a shorter time is missed, and what the allocator had kept is not counted.
    """

    def __init__(self, device: torch.device | str = "cpu", interval: float = 0.002) -> None:
        self.device = torch.device(device)
        self.growth_mb = 0.0
        self._interval = interval
        self._stop = threading.Event()

    def __enter__(self) -> "PeakMemory":
        if self.device.type != "cpu":
            synchronize()
            torch.accelerator.reset_peak_memory_stats(self.device)
            self._before = torch.accelerator.memory_allocated(self.device)
        else:
            self._before = self._peak = _anonymous_bytes()
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.device.type != "cpu":
            synchronize()
            self._peak = torch.accelerator.max_memory_allocated(self.device)
        else:
            self._stop.set()
            self._watcher.join()
        self.growth_mb = (self._peak - self._before) / 1e6

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            self._peak = max(self._peak, _anonymous_bytes())
        self._peak = max(self._peak, _anonymous_bytes())


def _anonymous_bytes() -> int:
    used = psutil.Process().memory_info()
    return used.rss - getattr(used, "shared", 0)  # (Linux says what is shared with files, others do not)


def peak_memory_mb(device: torch.device | str = "cpu") -> float | None:
    """The most memory in use so far, in MB of 10⁶ bytes: of this process, or of torch on a GPU. None if unknown."""
    if torch.device(device).type != "cpu":
        return torch.accelerator.max_memory_allocated(device) / 1e6
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if platform.system() == "Darwin" else peak * 1024 / 1e6


# --- Floating-point operations -----------------------------------------------------------------------------------


def forward_flops(model: PreTrainedModel, lengths: Sequence[int]) -> float:
    """Model FLOPs of a forward pass over sentences: products of matrices, of real tokens only. A backward has twice as many.

    Args:
        model: an encoder with full attention.
        lengths: tokens of each sentence, without padding.
    """
    weights = sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and "pooler" not in name  # the pooler sees one token of a sentence
    )
    attention = 2 * model.config.num_hidden_layers * model.config.hidden_size * sum(n * n for n in lengths)
    return 2.0 * (weights * sum(lengths) + attention)


def peak_flops(device: torch.device | str, dtype: torch.dtype) -> float | None:
    """The FLOP/s that the maker of a GPU states for products of dense matrices; None for a device not known here."""
    device = torch.device(device)
    if device.type != "cuda":
        return None
    return _stated_flops(torch.cuda.get_device_name(device), dtype)


def _stated_flops(name: str, dtype: torch.dtype) -> float | None:
    words = set(re.findall(r"\w+", name))
    return next((peaks.get(dtype) for known, peaks in _PEAK_FLOPS.items() if words.issuperset(known.split())), None)


# --- Report ------------------------------------------------------------------------------------------------------


def describe_machine() -> str:
    """The processor, how much of it is used, and the GPUs: `AMD EPYC, 2 threads on 2 cores, torch 2.13.0+cpu`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [_processor(), f"{torch.get_num_threads()} threads on {cores} cores"]
    if torch.cuda.is_available():
        parts.append(f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}")
    return ", ".join([*parts, f"torch {torch.__version__}"])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def write_report(path: str | Path, report: Mapping[str, Any]) -> None:
    """Write what was measured as JSON, with the machine, the versions and the commit."""
    record = run_record([])
    facts = {"machine": describe_machine(), "versions": record["versions"], "git_commit": record["git_commit"]}
    write_json(path, {**facts, **report})
