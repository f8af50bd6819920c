"""What predicts how much a language gains: the alignment before it, and how well the vocabulary fits the language.

Gaschi et al. (ACL 2023) found that better aligned languages transfer better; Veitsman et al. (2026) dispute it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
import scipy  # (which imports its modules when they are used)

from utils.experiments.arms import ADJUSTED, ORIGINAL, REGIMES, WORDS, Arm
from utils.experiments.results import PARTS, Results, original_for
from utils.parallel.sides import directions
from utils.tasks.registry import TASKS


# With fewer languages a correlation means nothing.
_FEWEST = 6
_VOCABULARY = {"subwords_per_word": "subwords per word", "unknown_words": "unknown words"}


@dataclass(frozen=True)
class Point:
    """A language under an arm: the number that may predict something, and what was gained on a task, in points."""

    language: str
    predictor: float
    gain: float


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of a predictor with the gain over languages, with its 95 % interval."""

    rho: float
    low: float
    high: float
    n_languages: int


def gains(results: Results) -> dict[str, dict[str, list[Point]]]:
    """Task → predictor → a point for every language and arm that starts from an adjusted model.

    Predictors: word retrieval of the original model and its change by the adjustment (means of both directions), MEXA of the
    original model in the highest layer that was measured, and the fit of the vocabulary. The gain is the difference from the original model, fine-tuned plainly.
    """
    found: dict[str, dict[str, list[Point]]] = {}
    for (part, name, baseline), compared in results.comparisons.items():
        arm = results.grid.arms.get(name)
        if part in TASKS and baseline == ORIGINAL and arm and REGIMES[arm.regime].starts_adjusted:
            adjusted = Arm(ADJUSTED, arm.variant).name
            for language, one in compared.items():
                for predictor, value in _predictors(results, adjusted, language):
                    point = Point(language, value, 100 * one.difference)
                    found.setdefault(PARTS[part][0], {}).setdefault(predictor, []).append(point)
    return found


def _predictors(results: Results, adjusted: str, language: str) -> Iterator[tuple[str, float]]:
    original = original_for(results.grid, WORDS, adjusted)
    before, after = (_word_retrieval(results, name, language) for name in (original, adjusted))
    if before is not None:
        yield "word retrieval before (%)", 100 * before
    if before is not None and after is not None:
        yield "change of word retrieval (points)", 100 * (after - before)
    if (mexa := results.retrieval.get(ORIGINAL, {}).get(f"{language}, MEXA")) is not None:
        yield "MEXA before (%)", 100 * mexa
    for name, title in _VOCABULARY.items():
        if language in results.vocabulary:
            yield title, results.vocabulary[language][name]


def _word_retrieval(results: Results, arm: str, language: str) -> float | None:
    of_arm = results.scores.get(WORDS, {}).get(arm, {})
    found = [score for way in directions(language) for score in of_arm.get(way, ())]
    return mean(found) if found else None


def correlate(points: Sequence[Point]) -> Correlation | None:
    """Spearman's ρ of predictor and gain over languages, each with its means over arms.

    What is known of a language before the adjustment is the same under all arms, and gains of a language resemble each other:
    so the languages are what is independent, not their points. The interval is Fisher's with the standard error of Bonett
    and Wright (Psychometrika 2000), √((1 + ρ²/2) / (n - 3)).

    Returns:
        None for fewer than six languages, or if predictor or gain is the same in all.
    """
    of_languages: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        of_languages.setdefault(point.language, []).append((point.predictor, point.gain))
    means = np.array([np.mean(found, axis=0) for found in of_languages.values()]).reshape(-1, 2)
    n = len(means)
    if n < _FEWEST or (means == means[0]).all(axis=0).any():
        return None
    rho = float(scipy.stats.spearmanr(*means.T).statistic)
    if abs(rho) > 1 - 1e-9:
        return Correlation(round(rho), round(rho), round(rho), n)
    reach = scipy.special.ndtri(0.975) * np.sqrt((1 + rho**2 / 2) / (n - 3))
    low, high = np.tanh(np.arctanh(rho) + np.array([-reach, reach]))
    return Correlation(rho, float(low), float(high), n)
