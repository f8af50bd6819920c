"""benchmarks/bench_retrieval.py as a user types it, on the tiny reference encoder."""

import json

import pytest
import torch

from benchmarks import bench_retrieval
from helpers.paths import REFERENCE


def test_quick(run, tmp_path, capsys):
    path = tmp_path / "report.json"
    model = ("--model", REFERENCE / "model")
    run(bench_retrieval.main, *model, "--quick", "--json", path)
    report = json.loads(path.read_text())
    sentences, tokens = report["sentences_per_second"], report["tokens_per_second"]
    assert set(sentences) == set(tokens) == {"encoder", "retrieval"}
    assert report["ratio"] == pytest.approx(sentences["retrieval"] / sentences["encoder"])
    assert tokens["encoder"] / sentences["encoder"] == pytest.approx(report["tokens"] / report["sentences"])
    assert 0 < report["padding_share"] < 0.5
    assert report["peak_memory_mb"] > 0
    assert report["layers"] == [2]
    assert report["fraction_of_peak"] == "unknown"
    assert [(found["queries"], found["candidates"]) for found in report["search"]] == [(1000, 1000), (1000, 5000)]
    for found in report["search"]:
        assert found["gflop_per_second"] == pytest.approx(
            2 * 384 * found["candidates"] * found["queries_per_second"] / 1e9
        )
        assert 0 < found["fraction_of_matrix_products"] < 2
    printed = capsys.readouterr().out
    assert f"ratio {report['ratio']:.3f}" in printed
    assert "(a sample of queries)" in printed


def test_sentences_are_different_and_real():
    few, many = bench_retrieval.embedded_sentences(50), bench_retrieval.embedded_sentences(5000)
    assert len(set(few)) == 50
    assert len(set(many)) == 5000
    assert many[:50] == few
    assert many[-1].endswith((" 1", " 2", " 3"))


def test_batches_of_the_bare_encoder():
    batches = bench_retrieval.padded_batches([[5], [6, 7, 8], [9, 9]], 2, 0, torch.device("cpu"))
    assert [batch["input_ids"].tolist() for batch in batches] == [[[6, 7, 8], [9, 9, 0]], [[5]]]
    assert [batch["attention_mask"].tolist() for batch in batches] == [[[1, 1, 1], [1, 1, 0]], [[1]]]
