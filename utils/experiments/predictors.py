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


# With fewer points a correlation means nothing.
_FEWEST = 6
_N_RESAMPLES = 2000
_VOCABULARY = {"subwords_per_word": "subwords per word", "unknown_words": "unknown words"}


@dataclass(frozen=True)
class Point:
    """A language under an arm: the number that may predict something, and what was gained on a task, in points."""

    predictor: float
    gain: float


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of a predictor with the gain, with the 95 % percentile interval over points."""

    rho: float
    low: float
    high: float
    n_points: int


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
                    point = Point(value, 100 * one.difference)
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


def correlate(points: Sequence[Point], seed: int = 0) -> Correlation | None:
    """Spearman's ρ of predictor and gain; None for fewer than six points, or if one of both is the same everywhere."""
    pairs = np.array([(point.predictor, point.gain) for point in points]).reshape(-1, 2)
    if len(pairs) < _FEWEST or (pairs == pairs[0]).all(axis=0).any():
        return None
    drawn = pairs[np.random.default_rng(seed).integers(len(pairs), size=(_N_RESAMPLES, len(pairs)))]
    ranks = scipy.stats.rankdata(drawn, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    lengths = np.sqrt((ranks**2).sum(axis=1)).prod(axis=1)
    rhos = (ranks.prod(axis=2).sum(axis=1) / np.where(lengths, lengths, 1))[lengths > 0]
    low, high = np.quantile(rhos, (0.025, 0.975))
    return Correlation(float(scipy.stats.spearmanr(*pairs.T).statistic), float(low), float(high), len(pairs))
