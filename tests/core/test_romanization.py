"""Text in Latin letters, word by word."""

import gzip
import json
from itertools import islice
from pathlib import Path

import pytest
from datasets import Dataset

from helpers.paths import PROJECT
from utils.core import romanization
from utils.core.errors import InputError
from utils.core.romanization import (
    check_romanized,
    files_by_source,
    romanize,
    romanize_columns,
    romanize_word,
    source_language,
)


SHARED = PROJECT.parent / "shared" / "data"


# --- Words and texts ---


@pytest.mark.parametrize(
    ("word", "language", "latin"),
    [
        ("नमस्ते", "hi", "namaste"),
        ("его", "ru", "yego"),
        ("его", "rus_Cyrl", "yego"),
        ("его", "ru-Latn", "yego"),
        ("его", "bg", "ego"),  # uroman has rules by language
        ("trường", "vi", "truong"),
        ("bắt chuyện", "vi", "bat chuyen"),  # one word of a Vietnamese treebank
        ("９½", "hi", "9 1/2"),
        ("。", "zh", "."),
        ("\u200d", "hi", "\u200d"),  # nothing is left of it
        ("Anna", "hi", "Anna"),
    ],
)
def test_words(word, language, latin):
    assert romanize_word(word, language) == latin


def test_a_text_has_as_many_words_as_before():
    text = " नदी  शांत\tथी ।\n \u200d कल"
    assert romanize(text, "hi") == " nadii  shaamt\tthii .\n \u200d kal"
    assert romanize(text.split(), "hi") == romanize(text, "hi").split()
    assert romanize("", "hi") == ""


def test_columns():
    rows = Dataset.from_dict({"tokens": [["नदी", "।"], []], "text": ["कल", "обед"], "id": ["क", "ख"]})
    found = romanize_columns(rows, ["tokens", "text"], "hi")
    assert found.to_dict() == {"tokens": [["nadii", "."], []], "text": ["kal", "obed"], "id": ["क", "ख"]}
    assert found.features == rows.features


def lines_of(path: Path, n: int) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in islice(file, n)]


@pytest.mark.skipif(not (SHARED / "romanised").is_dir(), reason="needs the data for measuring")
@pytest.mark.parametrize("language", ["hi", "ru", "vi"])
@pytest.mark.parametrize(("file", "columns"), [
    ("pos/test.{}.jsonl.gz", ["tokens"]), ("ner/validation.{}.jsonl.gz", ["tokens"]),
    ("nli/test.{}.jsonl.gz", ["premise", "hypothesis"]), ("parallel/en-{}.jsonl.gz", []),
])  # fmt: skip
def test_the_same_as_text_that_others_romanized(language, file, columns):
    """With uroman 1.3.1.1, word by word; space around a word is left out here."""
    latin = f"{language}-Latn"
    before = lines_of(SHARED / file.format(language), 200)
    after = lines_of(SHARED / "romanised" / file.format(latin), 200)
    for here, there in zip(before, after, strict=True):
        for column, expected in zip(columns or [language], columns or [latin]):
            assert romanize(here[column], language) == there[expected]


# --- Languages and files ---


def test_a_language_of_its_own_has_the_data_of_the_original():
    assert source_language("hi-Latn", ["hi-Latn"]) == "hi"
    assert source_language("hi-Latn", []) == "hi-Latn"  # a language like any other
    assert source_language("hi", ["hi"]) == "hi"


@pytest.mark.parametrize(
    ("values", "languages", "expected"),
    [
        (None, ["hi-Latn"], None),
        (["dev"], ["hi-Latn"], ["dev"]),
        (["hi=a"], ["hi-Latn"], ["hi-Latn=a"]),
        (["en=b", "hi=a,c"], ["en", "hi", "hi-Latn"], ["en=b", "hi=a,c", "hi-Latn=a,c"]),
        (["hi=a", "hi-Latn=b"], ["hi", "hi-Latn"], ["hi=a", "hi-Latn=b"]),
        (["hi=a", "ru=b"], ["hi", "ru"], ["hi=a", "ru=b"]),
    ],
)
def test_files(values, languages, expected):
    assert files_by_source(values, languages, ["hi-Latn", "ru"]) == expected


@pytest.mark.parametrize(("romanized", "languages"), [(["hi"], ["ru"]), (["hi-Latn"], ["hi"]), (["en"], ["en", "hi"])])
def test_what_has_no_effect_is_refused(romanized, languages):
    with pytest.raises(InputError, match=f"--romanize {romanized[0]}"):
        check_romanized(romanized, languages)


def test_a_missing_package_is_named(monkeypatch):
    def missing(name):
        raise romanization.PackageNotFoundError(name)

    monkeypatch.setattr(romanization, "version", missing)
    check_romanized([], ["hi"])
    with pytest.raises(InputError, match="pip install uroman"):
        check_romanized(["hi"], ["hi"])
