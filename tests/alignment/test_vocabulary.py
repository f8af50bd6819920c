"""How well a vocabulary fits the words of a language."""

import json
import re

import pytest
from datasets import Dataset

import run_align
from helpers import tiny
from helpers.paths import DATA
from helpers.task_scripts import CONTINUAL, QUICK
from utils.alignment.vocabulary import sentence_fit, task_vocabulary_fit, text_vocabulary_fit, vocabulary_fit
from utils.alignment.words import WordTokenizer, split_on_punctuation


def pairs(source: list[str], english: list[str]) -> Dataset:
    return Dataset.from_dict(
        {"source": [text.split() for text in source], "english": [text.split() for text in english]}
    )


def fit_with_english(words, pairs) -> dict:
    return vocabulary_fit(words, pairs, {language: (language, "en") for language in pairs})


def warnings(caplog) -> list[str]:
    return [record.message for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("kind", tiny.TOKENIZERS)
@pytest.mark.parametrize("pooling", ["avg", "start", "end"])
def test_subwords_per_word(kind, pooling, caplog):
    """Counted by hand, in whole sentences: also beyond the longest input."""
    tokenizer = tiny.tokenizer(kind)
    sentences = [split_on_punctuation(text) for text in tiny.TEXT[:5]]
    bitext = Dataset.from_dict({"source": sentences[1:], "english": [sentences[0]] * 4})
    with caplog.at_level("INFO"):
        fit = fit_with_english(WordTokenizer(tokenizer, pooling, max_length=8), {"xx": bitext})
    ids = [tokenizer(" ".join(words), add_special_tokens=False)["input_ids"] for words in sentences]
    assert fit["xx"]["subwords_per_word"] == pytest.approx(
        sum(map(len, ids[1:])) / sum(map(len, sentences[1:])), abs=1e-4
    )
    assert fit["en"]["subwords_per_word"] == pytest.approx(len(ids[0]) / len(sentences[0]), abs=1e-4)
    if not any(tokenizer.unk_token_id in row for row in ids):
        assert fit["xx"]["unknown_words"] == fit["en"]["unknown_words"] == 0
        assert not warnings(caplog)
    assert sum("Subwords per word" in record.message for record in caplog.records) == 1


def test_the_line_of_one_of_several_models_names_it(caplog):
    with caplog.at_level("INFO"):
        text_vocabulary_fit(tiny.tokenizer(), {"en": tiny.TEXT}, "adjusted")
    assert any("Subwords per word (adjusted): " in record.message for record in caplog.records)


@pytest.mark.parametrize("kind", tiny.TOKENIZERS)
def test_examples_of_tasks_have_the_fit_of_their_texts(kind):
    """Ids and labels are no text; what is split into words already is taken as it is."""
    words = WordTokenizer(tiny.tokenizer(kind))
    texts = tiny.TEXT[:4]
    expected = sentence_fit(words, {"xx": list(map(split_on_punctuation, texts))})
    pairs = {"id": ["a", "b"], "premise": texts[:2], "hypothesis": texts[2:], "label": ["ж", "ж"]}
    tagged = {"id": list("abcd"), "tokens": list(map(split_on_punctuation, texts)), "ner_tags": [["O"]] * 4}
    for columns in (pairs, tagged):
        assert task_vocabulary_fit(words, {"xx": Dataset.from_dict(columns)}) == expected


def test_subwords_as_words(caplog):
    tokenizer = tiny.tokenizer()
    tokens = [tokenizer.tokenize(text) for text in tiny.TEXT[:2]]
    fit = fit_with_english(
        WordTokenizer(tokenizer, "token"), {"es": Dataset.from_dict({"source": tokens[1:], "english": tokens[:1]})}
    )
    assert fit == {language: {"subwords_per_word": 1, "unknown_words": 0} for language in ("es", "en")}


@pytest.mark.parametrize(
    ("script", "word"), [("KHMER", "ខ្មែរ"), ("THAI", "ไทย"), ("GEORGIAN", "ენა"), ("CJK", "言語"), ("ARABIC", "لغة")]
)
@pytest.mark.parametrize("n_known", [0, 1, 99])
def test_an_unknown_script_is_a_reason_for_a_warning(script, word, n_known, caplog):
    """However few its words are."""
    bitext = pairs([word, *["river"] * n_known], ["language", *["river"] * n_known])
    fit = fit_with_english(WordTokenizer(tiny.tokenizer()), {"xx": bitext})
    assert fit["xx"]["unknown_words"] == pytest.approx(1 / (1 + n_known))
    assert fit["en"]["unknown_words"] == 0
    (message,) = warnings(caplog)
    assert script in message
    assert "xx" in message


@pytest.mark.parametrize(("n_unknown", "warned"), [(0, False), (3, False), (4, True), (40, True)])
def test_many_unknown_words_are_a_reason_for_a_warning(n_unknown, warned, caplog):
    """Words of a known script, with letters that the vocabulary lacks."""
    words = [*["ŵŷ"] * n_unknown, *["river"] * (100 - n_unknown)]
    fit = fit_with_english(WordTokenizer(tiny.tokenizer()), {"cy": pairs(words, ["river"] * 100)})
    assert fit["cy"]["unknown_words"] == n_unknown / 100
    assert bool(warnings(caplog)) == warned


def test_the_sample_is_spread_over_the_corpus():
    bitext = pairs([*["river"] * 5000, *["ខ្មែរ"] * 5000], ["river"] * 10_000)
    assert fit_with_english(WordTokenizer(tiny.tokenizer()), {"km": bitext})["km"]["unknown_words"] == pytest.approx(
        0.5
    )


def test_it_is_recorded(run, tmp_path, fine_tune, caplog):
    model = tiny.checkpoint(tmp_path / "model")
    with caplog.at_level("INFO"):
        run(run_align.main, "--model", model, "--languages", "hi", "ru", "--parallel_dataset", DATA / "parallel", "--aligner", "encoder",
            "--output_dir", tmp_path / "aligned", "--max_steps", 1, *QUICK)  # fmt: skip
    record = json.loads((tmp_path / "aligned" / "run.json").read_text())
    assert record["vocabulary"].keys() == {"hi", "ru", "en"}
    lines = [entry.message for entry in caplog.records if re.search("Subwords per word", entry.message)]
    assert len(lines) == 1
    out = fine_tune("nli", "--do_train", "--max_steps", 1, *CONTINUAL)
    assert json.loads((out / "run.json").read_text())["vocabulary"].keys() == {"hi", "en"}


def test_both_sides_have_the_codes_of_their_languages():
    """Also with another anchor than English, or with every language as the anchor."""
    words = WordTokenizer(tiny.tokenizer())
    one, other = ([split_on_punctuation(text) for text in part] for part in (tiny.TEXT[:2], tiny.TEXT[2:4]))
    there, back = (
        Dataset.from_dict({"source": one, "english": other}),
        Dataset.from_dict({"source": other, "english": one}),
    )
    assert vocabulary_fit(words, {"uk": there}, {"uk": ("uk", "ru")}) == sentence_fit(words, {"uk": one, "ru": other})
    both = {"uk-ru": ("uk", "ru"), "ru-uk": ("ru", "uk")}
    expected = sentence_fit(words, {"uk": one + one, "ru": other + other})
    assert vocabulary_fit(words, {"uk-ru": there, "ru-uk": back}, both) == expected
