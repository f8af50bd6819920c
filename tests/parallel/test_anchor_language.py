"""Pairs without an English side: found by names and order, never by English words or Latin letters."""

import json
import zipfile

import pytest

import run_align
import run_distances
from helpers import tiny
from utils.alignment.words import split_on_spaces
from utils.core.errors import InputError
from utils.parallel.arguments import ParallelDataArguments
from utils.parallel.corpus import ParallelCorpus
from utils.parallel.data_sets import load_bitext
from utils.parallel.formats import read_bitext


UKRAINIAN = ["Річка була тихою", "Ніхто не перейшов міст", "Кіт спить"]
RUSSIAN = ["Река была тихой", "Никто не перешёл мост", "Кот спит"]
PAIRS = list(zip(UKRAINIAN, RUSSIAN))


def table(columns: list[str], rows: list[tuple[str, ...]]) -> str:
    return "".join("\t".join(row) + "\n" for row in [tuple(columns), *rows])


def read(*paths, **columns) -> list[tuple[str, str]]:
    bitext = read_bitext([str(path) for path in paths], "uk", split_on_spaces, "space", anchor="ru", **columns)
    return [(" ".join(row["source"]), " ".join(row["english"])) for row in bitext]


@pytest.mark.parametrize(
    ("columns", "swapped"),
    [(["uk", "ru"], False), (["rus_Cyrl", "uk"], True), (["source", "target"], False), (["sentence1", "sentence2"], False)],
)  # fmt: skip
def test_columns(tmp_path, columns, swapped):
    path = tmp_path / "corpus.tsv"
    path.write_text(table(columns, [pair[::-1] if swapped else pair for pair in PAIRS]))
    assert read(path) == PAIRS


def test_a_table_with_more_languages(tmp_path):
    path = tmp_path / "corpus.tsv"
    rows = [(str(k), "The river was quiet", *pair) for k, pair in enumerate(PAIRS)]
    path.write_text(table(["id", "en", "uk", "ru"], rows))
    assert read(path) == PAIRS
    path.write_text(table(["id", "en", "a", "b"], rows))
    with pytest.raises(InputError):
        read(path)
    assert read(path, source_column="a", english_column="b") == PAIRS


def test_other_files(tmp_path):
    (tmp_path / "corpus.txt").write_text("".join(f"{uk} ||| {ru}\n" for uk, ru in PAIRS))
    assert read(tmp_path / "corpus.txt") == PAIRS
    sides = [tmp_path / "c.uk-ru.ru", tmp_path / "c.uk-ru.uk"]
    for path, sentences in zip(sides, (RUSSIAN, UKRAINIAN)):
        path.write_text("\n".join(sentences))
    assert read(*sides) == read(*reversed(sides)) == PAIRS
    with zipfile.ZipFile(tmp_path / "corpus.zip", "w") as archive:
        for path in sides:
            archive.write(path, path.name)
    assert read(tmp_path / "corpus.zip") == PAIRS


@pytest.mark.parametrize("config", ["uk-ru", "ru-uk"])
@pytest.mark.parametrize("streaming", [False, True])
def test_data_sets(tmp_path, config, streaming):
    (tmp_path / "uk").mkdir()
    (tmp_path / "both").mkdir()
    rows = [{"translation": {"ru": ru, "uk": uk}} for uk, ru in PAIRS]
    (tmp_path / "both" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "uk" / "train.jsonl").write_text(json.dumps({"uk": "Кіт спить", "en": "The cat sleeps"}))
    files = {"uk": "uk/train.jsonl", config: "both/train.jsonl"}
    configs = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {path}\n" for name, path in files.items()
    )
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    data = ParallelDataArguments(
        languages=["uk"], anchor_language="ru", parallel_dataset=str(tmp_path), streaming=streaming
    )
    found = load_bitext(data, "uk", split_on_spaces).select(range(3))
    assert [(" ".join(row["source"]), " ".join(row["english"])) for row in found] == PAIRS


@pytest.mark.parametrize(("language", "anchor", "splitting"), [("uk", "ru", "punctuation"), ("ru", "th", "icu"), ("th", "ru", "icu")])  # fmt: skip
def test_words_are_split_as_both_languages_need(tmp_path, language, anchor, splitting):
    path = tmp_path / "corpus.tsv"
    path.write_text(table([language, anchor], [("кот спит", "кіт спить")]))
    data = ParallelDataArguments(languages=[language], anchor_language=anchor)
    corpus = ParallelCorpus.read(data, tiny.tokenizer(), "avg", [str(path)], None)
    assert corpus.splitting == {language: splitting}


def test_a_language_is_not_its_own_anchor():
    with pytest.raises(InputError):
        ParallelDataArguments(languages=["ru", "uk"], anchor_language="ru")
    ParallelDataArguments(languages=["en", "uk"], anchor_language="ru")


def test_from_adjustment_to_distances(tmp_path, run):
    model = tiny.checkpoint(tmp_path / "encoder")
    corpus = tmp_path / "corpus.tsv"
    rows = [(tiny.TEXT[k % 2 + 1], tiny.TEXT[2 - k % 2].replace("7", str(k))) for k in range(24)]
    corpus.write_text(table(["uk", "ru"], rows))
    data = ["--language", "uk", "--anchor_language", "ru", "--parallel_file", corpus]
    quick = ["--use_cpu", "--disable_tqdm", "true", "--do_train", "--do_eval", "--validation_split_percentage", 30]
    adjusted = tmp_path / "adjusted"
    run(run_align.main, "--model", model, *data, "--output_dir", adjusted, *quick)
    results = json.loads((adjusted / "all_results.json").read_text())
    assert {"eval_uk-ru_word_retrieval_accuracy", "eval_ru-uk_word_retrieval_accuracy"} <= set(results)
    assert json.loads((adjusted / "run.json").read_text())["arguments"]["anchor_language"] == "ru"
    card = (adjusted / "README.md").read_text()
    assert "uk-ru" in card
    assert "English" not in card.split("## Use")[0]
    run(run_distances.main, "--models", adjusted, *data, "--output_dir", tmp_path / "distances")
    measured = json.loads((tmp_path / "distances" / "all_results.json").read_text())
    assert [name for name in measured if "uk-ru" in name]
    assert not [name for name in measured if "-en" in name or "en-" in name]
