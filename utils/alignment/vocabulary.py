"""How well the vocabulary of a tokenizer fits the words of a language."""

import logging
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from datasets import Dataset, Value
from transformers import PreTrainedTokenizerBase

from utils.alignment.words import Sentences, WordTokenizer, split_on_punctuation


# By language, `subwords_per_word` and `unknown_words`.
Fits = dict[str, dict[str, float]]

logger = logging.getLogger(__name__)

# The fit is measured on every k-th row, so that about this many are looked at (less than twice as many).
_SAMPLE = 2000
# A larger share of unknown words is a reason for a warning.
_FEW = 0.03


def vocabulary_fit(
    words: WordTokenizer, pairs: Mapping[str, Dataset], directions: Mapping[str, tuple[str, str]]
) -> Fits:
    """The `sentence_fit` of pairs, lists of words in the columns `source` and `english`, by language.

    `directions` are the languages of both sides, by the name of the pairs.
    """
    samples = {name: bitext[:: max(1, len(bitext) // _SAMPLE)] for name, bitext in pairs.items()}
    sentences: dict[str, list[list[str]]] = {}
    for side, column in enumerate(("source", "english")):
        for name, sample in samples.items():
            sentences.setdefault(directions[name][side], []).extend(sample[column])
    return sentence_fit(words, sentences)


def task_vocabulary_fit(words: WordTokenizer, examples: Mapping[str, Dataset]) -> Fits:
    """The `sentence_fit` of the examples of a task, by language: of the column `tokens`, or of all texts but ids and labels."""
    sentences: dict[str, list[list[str]]] = {}
    for language, some in examples.items():
        sample = some[:: max(1, len(some) // _SAMPLE)]
        texts = [
            name for name, kind in some.features.items() if kind == Value("string") and name not in ("id", "label")
        ]
        columns = [map(split_on_punctuation, sample[name]) for name in texts]
        sentences[language] = (
            sample["tokens"] if "tokens" in sample else [words for column in columns for words in column]
        )
    return sentence_fit(words, sentences)


def text_vocabulary_fit(
    tokenizer: PreTrainedTokenizerBase, texts: Mapping[str, Sequence[str]], model: str = ""
) -> Fits:
    """The `sentence_fit` of sentences that are not yet split into words, by language; `model` is named where there are several."""
    samples = {language: some[:: max(1, len(some) // _SAMPLE)] for language, some in texts.items()}
    sentences = {language: list(map(split_on_punctuation, sample)) for language, sample in samples.items()}
    return sentence_fit(WordTokenizer(tokenizer, "avg"), sentences, model)


def sentence_fit(words: WordTokenizer, sentences: Mapping[str, Sentences], model: str = "") -> Fits:
    """By language `subwords_per_word` (fertility) and `unknown_words`, the share of words with an [UNK].

    It is logged in one line, with a warning per language of which more than 3 % of the words, or half of the words of a
    script, are unknown.
    """
    fits = {language: _fit(words, language, some) for language, some in sentences.items()}
    subwords = ", ".join(f"{fit['subwords_per_word']:.2f} ({language})" for language, fit in fits.items())
    unknown = ", ".join(f"{fit['unknown_words']:.1%} ({language})" for language, fit in fits.items())
    of_model = f" ({model})" if model else ""
    logger.info(f"Subwords per word{of_model}: {subwords}. Unknown words: {unknown}.")
    return fits


def _fit(words: WordTokenizer, language: str, sentences: Sentences) -> dict[str, float]:
    n_tokens, seen, unknown = 0, Counter[str](), Counter[str]()  # words by script
    for sentence, ids, positions in zip(sentences, *words.tokens(sentences)):
        n_tokens += len(ids)
        scripts = list(map(_script, sentence))
        seen.update(scripts)
        unknown.update(scripts[k] for k in set(positions[np.array(ids) == words.tokenizer.unk_token_id].tolist()))
    n_words = max(1, seen.total())
    share = unknown.total() / n_words
    scripts = [script for script, number in unknown.items() if script and 2 * number > seen[script]]
    if share > _FEW or scripts:
        where = f" (those in {' and '.join(sorted(scripts))})" if scripts else ""
        logger.warning(
            f"{share:.1%} of the words of {language} are unknown to the vocabulary of {words.tokenizer.name_or_path}{where}: "
            "they all have the same vector. Choose an encoder that knows the language."
        )
    return {"subwords_per_word": round(n_tokens / n_words, 4), "unknown_words": round(share, 4)}


def _script(word: str) -> str:
    """The script of the first letter, by the first word of its Unicode name; empty for a word without letters."""
    letter = next(filter(str.isalpha, word), "")
    return unicodedata.name(letter, "").partition(" ")[0] if letter else ""
