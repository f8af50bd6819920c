"""Exact match and F1 of answers, after normalization, as the official scripts define them.

SQuAD's evaluate-v1.1.py (Rajpurkar et al., 2016) and evaluate-v2.0.py (2018), in any language; MLQA's
mlqa_evaluation_v1.py (Lewis et al., 2020), with rules for each language.
"""

import re
import string
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from operator import itemgetter


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
    """Characters to delete: ASCII punctuation for SQuAD; for MLQA all Unicode punctuation, such as the danda."""
    marks = set(string.punctuation)
    if language:
        marks |= {chr(code) for code in range(sys.maxunicode) if unicodedata.category(chr(code)).startswith("P")}
    return str.maketrans(dict.fromkeys(marks))


@cache
def _articles(language: str | None) -> re.Pattern[str] | None:
    articles = ARTICLES[language or "en"]
    return re.compile(rf"\b({'|'.join(articles)})\b") if articles else None


def normalize_answer(text: str, language: str | None = None) -> str:
    """Lower case, no punctuation, no articles, single spaces.

    With a language (code) by MLQA's rules, with None by SQuAD's, which are English in every language.

    Raises:
        ValueError: for a language without MLQA rules.
    """
    if language is not None and language not in ARTICLES:
        known = ", ".join(ARTICLES)
        raise ValueError(
            f"MLQA has no normalization for {language}, only for {known}; use --answer_normalization squad."
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
    """Exact match and F1 of an answer, between 0 and 1: the best over the right answers.

    Args:
        prediction: empty for no answer.
        answers: all right answers; empty if there is none (SQuAD v2).
        language: as for `normalize_answer`.
        version_2: follow evaluate-v2.0.py: right answers that normalization leaves empty do not count, and an empty
            prediction matches a question without answer. In v1.1 and MLQA two empty texts match exactly, but have no word
            in common, so that their F1 is 0.
    """
    predicted = normalize_answer(prediction, language)
    right = [normalize_answer(answer, language) for answer in answers]
    if version_2:
        right = [answer for answer in right if answer] or [""]
    return (
        float(max(predicted == answer for answer in right)),
        max(_f1(predicted.split(), answer.split(), version_2) for answer in right),
    )


def mean_scores(scores: Sequence[tuple[float, float]], *names: str) -> dict[str, float]:
    """The means of exact match and F1 over questions, in percent, under these names."""
    return {name: 100 * sum(column) / len(scores) for name, column in zip(names, zip(*scores))}


def version_2_scores(
    scores: Sequence[tuple[float, float]],
    has_answer: Sequence[bool],
    answered: Sequence[bool],
    null_scores: Sequence[float],
) -> dict[str, float]:
    """What SQuAD's script for v2 reports, in percent.

    Args:
        scores: exact match and F1 of every question.
        has_answer: whether the question has an answer.
        answered: whether the prediction is an answer.
        null_scores: the higher, the surer the model is that there is no answer.

    Returns:
        `exact_match` and `f1`; both for questions with (`HasAns_exact`, …) and without an answer (`NoAns_exact`, …), and
        the best that a threshold on `null_scores` could reach (`best_exact`, `best_exact_thresh`, …).
    """
    results = mean_scores(scores, "exact_match", "f1")
    for name, wanted in (("HasAns", True), ("NoAns", False)):
        if some := [score for score, has in zip(scores, has_answer) if has == wanted]:
            results |= {**mean_scores(some, f"{name}_exact", f"{name}_f1"), f"{name}_total": len(some)}
    for name, of_metric in zip(("exact", "f1"), zip(*scores)):
        # The best sum if every question above a threshold were left without answer.
        total = best = float(sum(not has for has in has_answer))  # no question is answered
        threshold = 0.0
        questions = zip(null_scores, of_metric, has_answer, answered)
        for null_score, score, has, given in sorted(questions, key=itemgetter(0)):
            total += score if has else -float(given)
            if total > best:
                best, threshold = total, null_score
        results |= {f"best_{name}": 100 * best / len(scores), f"best_{name}_thresh": threshold}
    return results


def _f1(predicted: list[str], right: list[str], version_2: bool) -> float:
    if version_2 and not (predicted and right):
        return float(predicted == right)
    common = sum((Counter(predicted) & Counter(right)).values())
    if not common:
        return 0.0
    precision, recall = common / len(predicted), common / len(right)
    return 2 * precision * recall / (precision + recall)
