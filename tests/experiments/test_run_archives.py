"""Archives of runs: they give the same tables as the folders, hold no texts, and damage is named."""

import gzip
import json
import re
from dataclasses import replace

import numpy as np
import pytest

import compare_runs
from helpers.paths import PROJECT
from helpers.places import MISSING, changed, places_in
from helpers.runs import write_alignment, write_nli, write_xsr
from utils.core.errors import InputError
from utils.experiments.comparison import comparison_table, find_baselines
from utils.experiments.comparison_tables import write_tables
from utils.experiments.finished_runs import check_same_data, read_runs
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


DAMAGES = [
    (("task",), "chess"),
    (("task",), None),
    (("sets",), {}),
    (("sets",), None),
    (("sets", "hi"), 3),
    (("original",), None),
    (("original",), {"sha256": ""}),
    (("original", "name"), 3),
    (("steps",), None),
    (("steps", 0, "kind"), "chess"),
    (("steps", 0, "seed"), [1]),
    (("steps", 0, "variant"), [{}]),
    (("steps", 0, "languages"), 3),
    (("unknown",), 1),
    (("sets", "hi", "results"), {}),
    (("sets", "hi", "results", "accuracy"), 0.9),
    (("sets", "hi", "results", "accuracy"), "0.5"),
    (("sets", "hi", "results", "f1"), 50),
    (("sets", "hi", "representation"), {"pooling": "mean"}),
    (
        ("sets", "a b"),
        {
            "split": "",
            "sha256": "",
            "n_examples": 1,
            "results": {"accuracy": 1},
            "rules": {},
            "representation": {},
            "scores": {},
        },
    ),
    (("sets", "hi", "scores", "accuracy"), [2, -1] * 50),
    (("sets", "hi", "rules"), -1),
    (("seed",), []),
    (("seed",), True),
    (("at_chance",), "false"),
    (("at_chance",), None),
    (("title",), None),
    (("system",), {"model": "m", "regime": "plain"}),
    (("steps", 0, "regime"), {}),
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


WRONG = [None, True, -1, 1.5, 7, 10**400, float("nan"), "", "false", [], {}, [1, 0], [[1, 2, 3]], {"a": "b"}]


def one_of_every_kind(folders, tmp_path):
    """Rows of an archive: of a task, of words, of sentences, and as older code wrote them."""
    archive = tmp_path / "all.runs.jsonl.gz"
    chosen = [run for run in read_runs(folders) if run.seed in (None, 2, 7)]
    write_archive(chosen, archive)
    rows = [json.loads(line) for line in gzip.decompress(archive.read_bytes()).splitlines()]
    rows += [json.loads(gzip.decompress(older(archive, chosen[:1]).read_bytes()))]
    assert {row["task"] for row in rows} == {"nli", "cross-lingual-adjustment", "sentence-retrieval"}
    return archive, rows


def compare(archive, folder):
    """All that compare_runs.py does with an archive."""
    runs = read_runs_and_archives([str(archive)])
    check_same_data(runs)
    table = comparison_table(runs, find_baselines(str(runs[0].system), runs), n_resamples=100)
    write_tables([table], folder)
    return runs


def test_every_part_of_a_row_missing_or_of_another_type(folders, tmp_path):
    """Refused with file and line; or read as what it is, compared without a traceback, and written again as it was."""
    archive, rows = one_of_every_kind(folders, tmp_path)
    n_read, compared = 0, {}
    for row in rows:
        for place, value in places_in(row, n_items=1):
            for wrong in [
                wrong for wrong in [*WRONG, MISSING] if wrong is MISSING or json.dumps(wrong) != json.dumps(value)
            ]:
                damaged = changed(row, place, wrong)
                archive.write_bytes(gzip.compress(json.dumps(damaged).encode(), 1))
                try:
                    (run,) = read_runs_and_archives([str(archive)])
                except InputError as error:
                    message = str(error)
                    assert "1 of" in message, (place, wrong)
                    assert archive.name in message
                    for python in ("None", "Error", "__init__", "object is not", "<"):
                        assert python not in message.replace("float('nan')", ""), message
                    continue
                n_read += 1
                assert type(run.seed) in (int, type(None)), (place, wrong)
                assert type(run.at_chance) is bool, (place, wrong)
                for name in ("folder", "task", "title"):
                    assert type(getattr(run, name)) is str
                for found in run.sets.values():
                    assert type(found.n_examples) is int
                    assert all(type(result) is float and 0 <= result <= 1 for result in found.results.values())
                    for metric, scores in found.scores.items():
                        assert len(scores) == found.n_examples, (place, wrong)
                        if scores.ndim == 1:
                            assert found.results[metric] == pytest.approx(scores.mean(), abs=1e-6)
                assert place[0] != "task", wrong
                compared.setdefault((row["task"], *place, type(wrong)), damaged)
    assert n_read > 20
    for number, row in enumerate(compared.values()):
        if number % 7 == 0:  # (each takes longer than all that is read)
            archive.write_bytes(gzip.compress(json.dumps(row).encode(), 1))
            compare(archive, tmp_path)


@pytest.mark.parametrize("kept", [(False, False), (True, False), (True, True)])
def test_words_measured_on_other_links_are_refused(tmp_path, kept):
    """Of the same pairs, but cut off earlier; whether folders or archives are compared."""
    paths = []
    for seed, (links, archived) in enumerate(zip((10, 4), kept)):
        folder = write_alignment(tmp_path / str(seed), seed, found=[2] * 12)
        for path in (folder / "predictions").iterdir():
            rows = [
                json.loads(line) | {"gold": links if k == 7 else 5}
                for k, line in enumerate(path.read_text().splitlines())
            ]
            path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        results = dict.fromkeys(json.loads((folder / "all_results.json").read_text()), 24 / (55 + links))
        (folder / "all_results.json").write_text(json.dumps(results))
        paths.append(folder)
        if archived:
            paths[-1] = tmp_path / f"{seed}.runs.jsonl.gz"
            write_archive(read_runs([str(folder)]), paths[-1])
    runs = read_runs_and_archives(list(map(str, paths)))
    with pytest.raises(InputError) as error:
        check_same_data(runs)
    assert {"10", "4"} <= set(re.findall(r"\b\d+\b", str(error.value)))
    check_same_data(runs[:1] * 2)


@pytest.mark.parametrize("content", ["", "\n\n", "[]", '{"data": []}'])
def test_an_archive_without_runs(tmp_path, content):
    archive = tmp_path / "a.runs.jsonl.gz"
    archive.write_bytes(gzip.compress(content.encode()))
    with pytest.raises(InputError, match=archive.name):
        read_runs_and_archives([str(archive)])


def test_the_archives_of_the_docs_are_read():
    assert len(read_runs_and_archives([str(PROJECT / "docs" / "results")])) > 50


@pytest.mark.parametrize("system", [None, {"model": "mbert"}])
def test_damage_of_an_older_archive_is_named(folders, tmp_path, system):
    archive = older(tmp_path / "a.runs.jsonl.gz", read_runs(folders[:1]))
    row = json.loads(gzip.decompress(archive.read_bytes()))
    archive.write_bytes(gzip.compress(json.dumps(changed(row, ("system",), system)).encode()))
    with pytest.raises(InputError):
        read_runs_and_archives([str(archive)])


def older(path, runs):
    """An archive as it was before rows kept the original model: with the names of the systems."""
    write_archive([replace(run, original=None, steps=()) for run in runs], path)
    assert set(json.loads(gzip.decompress(path.read_bytes()).splitlines()[0])) == {
        "folder", "task", "system", "seed", "sets", "settings", "history", "at_chance"
    }  # fmt: skip
    return path


def systems(*paths):
    """Seeds by the name of the system."""
    found = {}
    for run in read_runs_and_archives(list(map(str, paths))):
        found.setdefault(str(run.system), []).append(run.seed)
    return found


def encoder(folder, weights):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    if weights:
        (folder / "model.safetensors").write_text(weights)
    return str(folder)


# Two originals with the same last name: ids of the Hub, folders, folders that are gone; and whether they are one model.
PAIRS = {
    "repositories": (lambda tmp: ("me/mbert", "you/mbert"), False),
    "the same repository": (lambda tmp: ("me/mbert", "me/mbert"), True),
    "folders": (lambda tmp: (encoder(tmp / "a/x/mbert", "1"), encoder(tmp / "b/x/mbert", "2")), False),
    "copies": (lambda tmp: (encoder(tmp / "a/x/mbert", "1"), encoder(tmp / "b/y/mbert", "1")), True),
    "without weights": (lambda tmp: (encoder(tmp / "a/x/mbert", ""), encoder(tmp / "b/x/mbert", "")), False),
    "gone": (lambda tmp: (str(tmp / "a/x/mbert"), str(tmp / "b/x/mbert")), False),
}


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("title", ["", "adjusted (mse)"])
def test_originals_are_told_apart_wherever_they_are_read_from(tmp_path, kind, title):
    """From folders, from two archives, and from a folder and an archive, the same runs are the same systems."""
    make, same = PAIRS[kind]
    archives = []
    for seed, original in enumerate(make(tmp_path)):
        folder = write_nli(tmp_path / "runs" / str(seed), [1, 0] * 50, seed=seed, base_model=original)
        archives.append(tmp_path / f"{seed}.runs.jsonl.gz")
        write_archive([replace(run, title=title) for run in read_runs([str(folder)])], archives[-1])
    assert sorted(map(len, systems(*archives).values())) == ([2] if same else [1, 1])
    assert str(tmp_path).encode() not in b"".join(gzip.decompress(archive.read_bytes()) for archive in archives)
    if not title:
        assert sorted(map(len, systems(tmp_path / "runs/0", archives[1]).values())) == ([2] if same else [1, 1])
        assert sorted(map(len, systems(tmp_path / "runs/0", tmp_path / "runs/1").values())) == (
            [2] if same else [1, 1]
        )


def test_what_is_said_of_other_runs_depends_on_all(tmp_path):
    """Continual learning in two languages is told apart also where each archive has one of them; so are titles of arms."""
    for title in ("", "adjusted"):
        archives = []
        for seed, language in enumerate(("hi", "ru")):
            adjusted = write_alignment(tmp_path / f"{title}aligned{seed}", seed, languages=[language])
            options = {"regime": "continual", "arguments": {"languages": [language]}, "base_model": adjusted}
            folder = write_nli(tmp_path / f"{title}{seed}", [1, 0] * 50, seed=seed, **options)
            archives.append(tmp_path / f"{title}{seed}.runs.jsonl.gz")
            write_archive([replace(run, title=title) for run in read_runs([str(folder)])], archives[-1])
        assert len(systems(*archives)) == 2
        assert len(systems(archives[0])) == 1


def test_parts_of_a_grid_are_compared_as_one(run, tmp_path):
    """Archives of older code and of this, each with the original, which was measured for both, and other variants."""
    archives = []
    for part, variants in enumerate((("mse",), ("cosine", "lora"))):
        write_alignment(tmp_path / f"words{part}", None, found=[1, 2] * 60, do_train=False, word_pooling="avg")
        folders = {"original": tmp_path / f"words{part}"}
        for number, variant in enumerate(variants):
            folders[f"adjusted ({variant})"] = tmp_path / variant
            write_alignment(tmp_path / variant, 1, found=[2 + number, 3] * 60, word_pooling="avg")
        runs = [replace(run, title=title) for title, folder in folders.items() for run in read_runs([str(folder)])]
        archives.append(tmp_path / "parts" / f"{part}.runs.jsonl.gz")
        if part:
            write_archive(runs, archives[1])
        else:
            named = [replace(run, title="", system=run.system._replace(model=run.title)) for run in runs]
            archives[0].parent.mkdir()
            older(archives[0], named)
            assert len(systems(archives[0])) == 2
    assert systems(archives[0].parent) == {
        "original, layer -1": [None],
        **{f"adjusted ({name}), layer -1": [1] for name in ("mse", "cosine", "lora")},
    }
    run(compare_runs.main, archives[0].parent, "--baseline", "original", "--output_dir", tmp_path / "out")
    # An original with other scores is no repetition.
    other = write_alignment(tmp_path / "words2", None, found=[1, 1] * 60, do_train=False, word_pooling="avg")
    write_archive([replace(run, title="original") for run in read_runs([str(other)])], archives[1])
    with pytest.raises(InputError):
        run(compare_runs.main, archives[0].parent, "--output_dir", tmp_path / "again")


def test_an_original_that_two_grids_measured_in_other_languages_is_one(run, tmp_path):
    """What both say of a language is said once, what only one says is added."""
    archives = []
    for part, languages in enumerate((["hi", "ru"], ["ru", "vi"])):
        where = {"languages": languages, "word_pooling": "avg"}
        folders = {
            "original": write_alignment(tmp_path / f"words{part}", None, found=[1, 2] * 60, do_train=False, **where),
            f"adjusted {part}": write_alignment(tmp_path / f"align{part}", 1, found=[2, 3] * 60, **where),
        }
        archives.append(tmp_path / "parts" / f"{part}.runs.jsonl.gz")
        write_archive(
            [replace(one, title=title) for title, folder in folders.items() for one in read_runs([str(folder)])],
            archives[-1],
        )
    found = [sorted(one.sets) for one in read_runs_and_archives([str(tmp_path / "parts")]) if one.title == "original"]
    assert found == [["en-hi", "en-ru", "hi-en", "ru-en"], ["en-vi", "vi-en"]]
    run(compare_runs.main, tmp_path / "parts", "--baseline", "original", "--output_dir", tmp_path / "out")


def test_half_an_archive_is_refused(folders, tmp_path):
    archive = tmp_path / "a.runs.jsonl.gz"
    write_archive(read_runs(folders[:2]), archive)
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(InputError):
        read_runs_and_archives([str(archive)])
