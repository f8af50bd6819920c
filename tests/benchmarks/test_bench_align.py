"""benchmarks/bench_align.py and bench_continual.py as a user types them, on the tiny reference encoder."""

import json
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import bench_align, bench_continual
from helpers.paths import REFERENCE


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def report_of(run, main, path, *arguments) -> dict:
    run(main, "--model", REFERENCE / "model", "--use_cpu", "--json", path, *arguments)
    return json.loads(path.read_text())


@pytest.mark.parametrize("further", [("mse",), ("contrastive", "--bf16")])
def test_the_real_step_beside_the_bare_one(run, tmp_path, capsys, monkeypatch, further):
    clock = count()  # (a hundredth of a second between any two looks at it)
    monkeypatch.setattr(bench_align, "time", SimpleNamespace(perf_counter=lambda: next(clock) / 100))
    how = ("--steps", 6, "--batch_size", 4, "--pairs", 200, "--alignment_objective", *further)
    report = report_of(run, bench_align.main, tmp_path / "report.json", *how)
    assert report["ratio"] == 1
    assert report["pairs_per_second"] == report["bare_pairs_per_second"] == 400
    assert 0 < report["padding_share"] < 0.3
    assert report["tokens_per_second"] > report["pairs_per_second"] * 10
    assert report["fraction_of_peak"] is None
    assert "git_commit" in report
    assert f"ratio                        {report['ratio']}" in capsys.readouterr().out


def test_pairs_of_many_lengths():
    pairs = bench_align.read_pairs(None, 500)
    lengths = np.array([[len(pair["source"]), len(pair["english"])] for pair in pairs])
    spread = np.log(lengths).std(axis=0)
    assert ((spread > 0.4) & (spread < 0.8)).all(), "as in real corpora, about 0.5"
    for pair in pairs:
        assert all(i < len(pair["source"]) and j < len(pair["english"]) for i, j in pair["links"])


def test_the_cost_of_continual_learning(run, tmp_path):
    how = ("--steps", 4, "--repeats", 1, "--batch_size", 8, "--alignment_batch_size", 4)
    report = report_of(run, bench_continual.main, tmp_path / "report.json", *how)
    task, source, english = (report[f"{part}_tokens"] for part in ("task", "source", "english"))
    assert report["continual_tokens"] == pytest.approx(1 + (source + english) / task + english / task / 3, abs=2e-3)
    of_step = report["continual_seconds_per_step"]
    assert report["continual_cost"] == pytest.approx(of_step / report["plain_seconds_per_step"], rel=0.05)
    by_tokens = report["continual_cost"] / report["continual_tokens"]
    assert report["continual_cost_by_tokens"] == pytest.approx(by_tokens, rel=0.01)
