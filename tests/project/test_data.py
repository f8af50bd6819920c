"""The embedded sentences are what their cards say."""

import re
import unicodedata
from collections import Counter

import pytest
from datasets import load_dataset

import run_pos
from helpers.paths import DATA
from utils.core.tables import read_tsv
from utils.evaluation.entities import entities
from utils.tasks.tagging import read_conll


LANGUAGES = ("es", "ru", "vi", "hi")
LATIN = "hi-Latn"  # Hindi in Latin letters
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
    english = [[e for part in pairs(language) for _, e in part] for language in (*LANGUAGES, LATIN)]
    assert english.count(english[0]) == len(LANGUAGES) + 1
    assert sum(e.endswith("?") for e in english[0]) >= 40
    assert sum(any(c.isdigit() for c in e) for e in english[0]) >= 30


def test_hindi_in_latin_letters():
    """Made of hi word by word: the same number of words, in Latin letters without diacritics."""
    for hindi, latin in zip(pairs("hi"), pairs(LATIN)):
        for (devanagari, _), (romanized, _) in zip(hindi, latin):
            assert len(devanagari.split()) == len(romanized.split())
            assert re.fullmatch(r"[ -~“”–—’‘…]+", romanized), romanized


# --- Samples for the tasks ---

ALL = ("en", *LANGUAGES)


def samples(task: str) -> dict[tuple[str, str], list[dict]]:
    """All rows of a task, by language and split."""
    sets = {language: load_dataset(str(DATA / task), language) for language in ALL}
    return {(language, split): rows.to_list() for language, parts in sets.items() for split, rows in parts.items()}


@pytest.mark.parametrize(
    ("task", "sizes"),
    [
        ("nli", {"train": 180, "validation": 60, "test": 60}),
        ("ner", {"train": 90, "validation": 30, "test": 30}),
        ("qa", {"train": 45, "validation": 30}),
        ("pos", {"train": 16, "validation": 7, "test": 7}),
    ],
)
def test_samples_are_parallel(task, sizes):
    rows = samples(task)
    assert {key: len(some) for key, some in rows.items()} == {
        (lang, split): n for lang in ALL for split, n in sizes.items()
    }
    for split in sizes:
        ids = [[row["id"] for row in rows[language, split]] for language in ALL]
        assert ids.count(ids[0]) == len(ALL)
    every_id = [row["id"] for split in sizes for row in rows["en", split]]
    assert len(set(every_id)) == len(every_id)


def test_nli_samples():
    """Three hypotheses to each of a hundred premises, and no text twice."""
    rows = samples("nli")
    for language in ALL:
        pairs = [row for (code, _), some in rows.items() if code == language for row in some]
        assert len({row["premise"] for row in pairs}) == 100
        assert len({row["hypothesis"] for row in pairs}) == 300
        for premise in {row["premise"] for row in pairs}:
            assert sorted(r["label"] for r in pairs if r["premise"] == premise) == [
                "contradiction",
                "entailment",
                "neutral",
            ]
        assert all(
            text == unicodedata.normalize("NFC", text).strip()
            for row in pairs
            for text in (row["premise"], row["hypothesis"])
        )
    # Negation alone must not give a label away.
    english = [row for (code, _), some in rows.items() if code == "en" for row in some]
    negated = [
        row["label"]
        for row in english
        if re.search(r"\b(not|no|never|nobody|none|nothing)\b|n't", row["hypothesis"].lower())
    ]
    assert all(negated.count(label) < 2 / 3 * len(negated) for label in set(negated))


def test_pos_samples():
    """Tags as run_pos.py wants them; no sentence twice; the script of the language."""
    rows = samples("pos")
    for language in ALL:
        sentences = [row for (code, _), some in rows.items() if code == language for row in some]
        assert len({tuple(row["tokens"]) for row in sentences}) == 30
        for row in sentences:
            assert len(row["tokens"]) == len(row["pos_tags"]) >= 4
            assert set(row["pos_tags"]) <= set(run_pos.LABELS)
            assert row["pos_tags"][-1] == "PUNCT"
            assert all(word == unicodedata.normalize("NFC", word).strip() for word in row["tokens"])
        letters = [c for row in sentences for c in "".join(row["tokens"]) if unicodedata.category(c)[0] in "LM"]
        script = SCRIPT.get(language, "LATIN")
        assert sum(unicodedata.name(c).startswith((script, "COMBINING")) for c in letters) / len(letters) > 0.97
    assert len({tag for some in rows.values() for row in some for tag in row["pos_tags"]}) >= 12


def test_swahili():
    """The pairs and tags of the tutorial; the tagged sentences are the held-out ones."""
    folder = DATA / "swahili"
    train, test = ([row for _, row in read_tsv(str(folder / name))] for name in ("train.tsv", "test.tsv"))
    assert (len(train), len(test)) == (280, 100)
    assert load_dataset(str(folder), "en-sw")["test"].to_list() == test
    for side, shortest in (("sw", 3), ("en", 4)):
        sentences = [pair[side] for pair in train + test]
        assert len(set(sentences)) == 380
        assert all(re.fullmatch(r"[A-Z][A-Za-z', ]+[.?]", sentence) for sentence in sentences)
        assert all(shortest <= len(sentence.split()) <= 15 for sentence in sentences)
    tagged = [row for _, row in read_conll(str(folder / "pos.conll"), "pos_tags")]
    assert [re.sub(r" ([.,?])", r"\1", " ".join(row["tokens"])) for row in tagged] == [pair["sw"] for pair in test]
    assert {tag for row in tagged for tag in row["pos_tags"]} <= set(run_pos.LABELS)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 60_000


def test_ner_samples():
    """The same entities in every language, tags as run_ner.py wants them."""
    rows = samples("ner")
    kinds = {}
    for (language, _), some in rows.items():
        for row in some:
            assert len(row["tokens"]) == len(row["ner_tags"])
            found = entities(row["ner_tags"])
            assert all(row["ner_tags"][first] == f"B-{kind}" for kind, first, _ in found)
            kinds.setdefault(row["id"], {})[language] = sorted(kind for kind, *_ in found)
    assert all(list(by_language.values()).count(by_language["en"]) == len(ALL) for by_language in kinds.values())
    counts = Counter(kind for by_language in kinds.values() for kind in by_language["en"])
    assert set(counts) == {"PER", "LOC", "ORG"}
    assert min(counts.values()) > 60
    assert sum(not by_language["en"] for by_language in kinds.values()) >= 10


def test_qa_samples():
    """Every answer stands once in its context, where it is said to, and at the boundaries of words."""
    rows = samples("qa")
    for (language, _), some in rows.items():
        assert len({row["context"] for row in some}) == len(some) / 3
        for row in some:
            (answer,), (start,) = row["answers"]["text"], row["answers"]["answer_start"]
            context = row["context"]
            assert context.count(answer) == 1, (language, row["id"])
            assert context[start : start + len(answer)] == answer
            before, after = context[:start][-1:], context[start + len(answer) :][:1]
            assert not any(unicodedata.category(letter)[0] in "LMN" for letter in before + after), (
                language,
                row["id"],
            )
