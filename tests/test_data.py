"""The embedded sentences are what their cards say."""

import unicodedata
from pathlib import Path

import pytest
from datasets import load_dataset


DATA = Path(__file__).parent.parent / "data"
LANGUAGES = ("es", "ru", "vi", "hi")
SCRIPT = {"es": "LATIN", "ru": "CYRILLIC", "vi": "LATIN", "hi": "DEVANAGARI"}


def pairs(language: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Pairs (foreign, English) for adjusting, and held out."""
    train = load_dataset(str(DATA / "parallel"), f"en-{language}", split="train")
    test = load_dataset(str(DATA / "xsr"), language, split="test")
    return list(zip(train[language], train["en"])), list(zip(test["source_sentence"], test["target_sentence"]))


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentences(language):
    train, test = pairs(language)
    assert (len(train), len(test)) == (300, 100)
    for side in (0, 1):
        sentences = [pair[side] for pair in train + test]
        assert len(set(sentences)) == 400
        assert all(s == unicodedata.normalize("NFC", s).strip() for s in sentences)
    assert all(5 <= len(english.split()) <= 25 for _, english in train + test)
    letters = [c for foreign, _ in train + test for c in foreign if unicodedata.category(c)[0] in "LM"]
    right = sum(unicodedata.name(c).startswith((SCRIPT[language], "COMBINING")) for c in letters)
    assert right / len(letters) > 0.97


def test_the_english_side_is_the_same_everywhere():
    english = [[e for part in pairs(language) for _, e in part] for language in LANGUAGES]
    assert english.count(english[0]) == len(LANGUAGES)
    assert sum(e.endswith("?") for e in english[0]) >= 40
    assert sum(any(c.isdigit() for c in e) for e in english[0]) >= 30
