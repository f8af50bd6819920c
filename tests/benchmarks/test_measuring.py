"""The measuring of the benchmarks."""

import json
import time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import measuring
from helpers import tiny


def test_functions_take_turns():
    calls = []
    functions = {"slow": lambda: (calls.append("slow"), time.sleep(0.02)), "fast": lambda: calls.append("fast")}
    seconds = measuring.interleaved_medians(functions, repeats=3)
    assert calls == ["slow", "fast", "slow", "fast", "fast", "slow", "slow", "fast"]
    assert list(seconds) == ["slow", "fast"]
    assert seconds["slow"] >= 0.02 > seconds["fast"]


def test_a_median_forgives_one_interruption(monkeypatch):
    times = iter([1.0, 9.0, 2.0])
    monkeypatch.setattr(measuring, "seconds_of", lambda function: next(times))
    assert measuring.interleaved_medians({"work": lambda: None}, repeats=3) == {"work": 2}


def test_memory_that_is_freed_again_counts():
    with measuring.PeakMemory() as memory:
        block = torch.ones(25_000_000)
        time.sleep(0.05)
        del block
    assert memory.growth_mb == pytest.approx(100, abs=15)
    with measuring.PeakMemory() as memory:
        time.sleep(0.05)
    assert memory.growth_mb < 15


def test_peak_memory_is_that_of_the_process():
    block = torch.ones(25_000_000)
    assert measuring.peak_memory_mb() > block.nbytes / 1e6


@pytest.mark.parametrize("lengths", [[7], [5, 5, 5]])
def test_forward_flops_are_those_that_torch_counts(lengths):
    model = tiny.model("Bert", head="")
    model.set_attn_implementation("eager")  # torch counts no fused attention on a CPU
    tokens = torch.ones(len(lengths), lengths[0], dtype=torch.long)
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        model(input_ids=tokens, attention_mask=tokens)
    pooler = 2 * len(lengths) * model.config.hidden_size**2
    assert measuring.forward_flops(model, lengths) == counted.get_total_flops() - pooler


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA L4", 121e12),
        ("Tesla T4", None),  # has no bf16
        ("Some GPU", None),
    ],
)
def test_peaks_of_devices(name, peak):
    assert measuring._stated_flops(name, torch.bfloat16) == peak


def test_no_peak_is_stated_for_a_cpu():
    assert measuring.peak_flops("cpu", torch.bfloat16) is None


def test_a_report_says_where_it_was_made(tmp_path):
    measuring.write_report(tmp_path / "report.json", {"ratio": 0.95})
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["ratio"] == 0.95
    assert f"torch {torch.__version__}" in report["machine"]
    assert report["versions"]["torch"] == torch.__version__
    assert "git_commit" in report
