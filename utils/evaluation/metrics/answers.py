"""How close an answer is to the right one: exact match and F1 of words, after a normalisation that forgives a little.

The definitions are those of the official scripts: SQuAD's evaluate-v1.1.py (Rajpurkar et al., 2016) and evaluate-v2.0.py
(2018) in any language, and MLQA's mlqa_evaluation_v1.py (Lewis et al., 2020), which knows languages.
"""

import re
import string
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache


# MLQA's articles, in the languages that have any. (Arabic ones are part of the word that follows.)
ARTICLES = {
    "en": ("a", "an", "the"),
    "es": ("un", "una", "unos", "unas", "el", "la", "los", "las"),
    "vi": ("của", "là", "cái", "chiếc", "những"),
    "de": ("ein", "eine", "einen", "einem", "eines", "einer", "der", "die", "das", "den", "dem", "des"),
    "hi": (),
    "ar": (),
    "zh": (),
}
_ARABIC_ARTICLE = "ال"
_HAN = re.compile("([\u4e00-\u9fa5])")


@cache
def _punctuation(language: str | None) -> dict[int, None]:
    """What is deleted: ASCII's for SQuAD; for MLQA whatever Unicode calls punctuation, the danda as well."""
    marks = set(string.punctuation)
    if language:
        marks |= {chr(code) for code in range(sys.maxunicode) if unicodedata.category(chr(code)).startswith("P")}
    return str.maketrans(dict.fromkeys(marks))


@cache
def _articles(language: str | None) -> re.Pattern[str] | None:
    articles = ARTICLES[language or "en"]
    return re.compile(rf"\b({'|'.join(articles)})\b") if articles else None


def normalize_answer(text: str, language: str | None = None) -> str:
    """A text as it is compared: lower case, no punctuation, no articles, single spaces.

    Args:
        text: an answer.
        language: its code, for MLQA's rules; None for SQuAD's, which are English whatever the language.

    Raises:
        ValueError: for a language that MLQA does not have.
    """
    if language is not None and language not in ARTICLES:
        raise ValueError(
            f"MLQA has no normalisation for {language}, only for {', '.join(ARTICLES)}; use SQuAD's "
            "(--answer_normalization squad)."
        )
    text = text.lower().translate(_punctuation(language))
    if articles := _articles(language):
        text = articles.sub(" ", text)
    if language == "ar":
        text = text.replace(_ARABIC_ARTICLE, " ")
    if language == "zh":  # every Chinese character is a word
        text = _HAN.sub(r" \1 ", text)
    return " ".join(text.split())


def answer_scores(
    prediction: str, answers: Sequence[str], language: str | None = None, version_2: bool = False
) -> tuple[float, float]:
    """Exact match and F1 of an answer, against that right answer that it is closest to.

    Args:
        prediction: the answer; empty for none.
        answers: all right ones; empty if there is none (SQuAD v2).
        language: as for `normalize_answer`.
        version_2: follow evaluate-v2.0.py: right answers of which nothing is left by normalisation do not count, and an
            empty prediction matches a question without answer. In v1.1 and MLQA two empty texts match exactly, but have
            no word in common, so that their F1 is 0.

    Returns:
        Both between 0 and 1.
    """
    predicted = normalize_answer(prediction, language)
    right = [normalize_answer(answer, language) for answer in answers]
    if version_2:
        right = [answer for answer in right if answer] or [""]
    return (
        float(max(predicted == answer for answer in right)),
        max(_f1(predicted.split(), answer.split(), version_2) for answer in right),
    )


def _f1(predicted: list[str], right: list[str], version_2: bool) -> float:
    if version_2 and not (predicted and right):
        return float(predicted == right)
    common = sum((Counter(predicted) & Counter(right)).values())
    if not common:
        return 0.0
    precision, recall = common / len(predicted), common / len(right)
    return 2 * precision * recall / (precision + recall)
