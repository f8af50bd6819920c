"""Archives of runs: they give the same tables as the folders, hold no texts, and damage is named."""

import gzip
import json

import numpy as np
import pytest

import compare_runs
from helpers.runs import write_alignment, write_nli, write_xsr
from utils.core.errors import InputError
from utils.experiments.finished_runs import read_runs
from utils.experiments.run_archives import read_runs_and_archives, write_archive


@pytest.fixture
def folders(tmp_path):
    """Runs of three kinds, with whole and broken scores, with and without predictions."""
    pairs = np.random.default_rng(0).integers(0, 6, size=(3, 12)).tolist()
    runs = tmp_path / "runs"
    return [
        *(write_nli(runs / f"plain-{seed}", [1, 0] * 50, seed=seed) for seed in (1, 2)),
        *(
            write_nli(runs / f"continual-{seed}", [1, 1, 0, 1] * 25, seed=seed, regime="continual", arguments={"languages": ["hi"]})
            for seed in (1, 2)
        ),
        *(write_alignment(runs / f"align-{seed}", seed, found=found) for seed, found in enumerate(pairs)),
        write_alignment(runs / "contrastive", 7, found=pairs[0], alignment_objective="contrastive"),
        write_xsr(runs / "xsr", [1, 3, 2, 1, 7]),
    ]  # fmt: skip


def tables(folder):
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("comparison.*"))}


def test_an_archive_gives_the_tables_of_its_folders(run, folders, tmp_path):
    common = ("--baseline", "plain", "--n_resamples", 200, "--metric", "accuracy", "mrr", "word_retrieval_accuracy")
    archive = tmp_path / "docs" / "all.runs.jsonl.gz"
    run(compare_runs.main, *folders, *common, "--archive_file", archive, "--output_dir", tmp_path / "a")
    run(compare_runs.main, archive, *common, "--output_dir", tmp_path / "b")
    run(compare_runs.main, archive.parent, archive, *common, "--output_dir", tmp_path / "c")  # (read once)
    assert tables(tmp_path / "a") == tables(tmp_path / "b") == tables(tmp_path / "c")
    assert len(tables(tmp_path / "a")) == 3


def test_archives_and_folders_are_compared_together(folders, tmp_path):
    archive = tmp_path / "some.runs.jsonl.gz"
    write_archive(read_runs(folders[:2]), archive)
    both = read_runs_and_archives([str(archive), *map(str, folders[2:4])])
    assert {(run.system.regime, run.seed) for run in both} == {
        (regime, seed) for regime in ("plain", "continual") for seed in (1, 2)
    }


def test_the_same_runs_make_the_same_file_without_texts(folders, tmp_path):
    files = [tmp_path / f"{name}.runs.jsonl.gz" for name in "ab"]
    for file in files:
        write_archive(read_runs(folders), file)
    assert files[0].read_bytes() == files[1].read_bytes()
    text = gzip.decompress(files[0].read_bytes()).decode()
    assert "neutral" not in text
    assert "x17" not in text


def test_a_name_that_would_not_be_read_again_is_refused_before_any_work(run, folders, tmp_path):
    with pytest.raises(InputError):
        run(compare_runs.main, *folders, "--archive_file", tmp_path / "runs.gz", "--output_dir", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def changed(row, path, value):
    """A row with another value at a place; without it if the value is None."""
    *most, last = path
    inner = row
    for key in most:
        inner = inner[key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return row


DAMAGES = [
    (("task",), "chess"),
    (("task",), None),
    (("sets",), {}),
    (("sets",), None),
    (("sets", "hi"), 3),
    (("system",), None),
    (("system",), {"model": "mbert"}),
    (("unknown",), 1),
    (("sets", "hi", "results"), {}),
    (("sets", "hi", "n_examples"), 99),
    (("sets", "hi", "scores", "accuracy"), [1, 0]),
    (("sets", "hi", "scores", "accuracy"), [[1, 0]] * 100),
    (("sets", "hi", "scores", "accuracy"), ["x"] * 100),
    (("sets", "hi", "scores", "accuracy"), [float("nan")] * 100),
]


@pytest.mark.parametrize(("path", "value"), DAMAGES)
def test_damage_is_named_by_its_line(folders, tmp_path, path, value):
    archive = tmp_path / "a.runs.jsonl.gz"
    write_archive(read_runs(folders[:2]), archive)
    first, second = gzip.decompress(archive.read_bytes()).decode().splitlines()
    lines = [first, json.dumps(changed(json.loads(second), path, value))]
    archive.write_bytes(gzip.compress("\n".join(lines).encode()))
    with pytest.raises(InputError) as error:
        read_runs_and_archives([str(archive)])
    assert "Line 2" in str(error.value)
    assert archive.name in str(error.value)


def test_half_an_archive_is_refused(folders, tmp_path):
    archive = tmp_path / "a.runs.jsonl.gz"
    write_archive(read_runs(folders[:2]), archive)
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(InputError):
        read_runs_and_archives([str(archive)])
