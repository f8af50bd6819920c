"""Is the difference between two systems statistically significant? Tests for scores of the same examples.

Tests of examples pair them, after averaging the scores of several seeds (as Efimov et al., ECIR 2023, do): they are about these
trained models on other examples of the same kind. `with_seeds` also counts how much other seeds would change. Scores are in the metric's unit (usually 0 to 1); differences are system minus baseline. Tests raise `ValueError`
if the two systems were not scored on the same examples, or on none.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # (which imports its modules when they are used)


# Fewer cannot support a claim. The standard deviation of two runs means little; with 100 examples an accuracy is known to
# ten points; with less than ten examples on which two systems differ, a single one decides.
MIN_SEEDS = 3
MIN_EXAMPLES = 100
MIN_DISCORDANT = 10
# Numbers drawn at once for resampling: bounds the memory to about ten megabytes.
_DRAWN_AT_ONCE = 2**20
# With at least this many rows per distinct row, drawing counts (multinomial) is faster than drawing rows.
_MANY = 8
# Statistics that differ by less are equal.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class SeedScores:
    """The scores of several seeds."""

    mean: float
    sd: float | None  # of the sample (N - 1 in the denominator); None for a single seed
    n: int


@dataclass(frozen=True)
class Bootstrap:
    """A measured difference with its percentile interval, the two-sided p-value (at least 1 / (resamples + 1)), and the
    standard error over examples.
    """

    difference: float
    low: float
    high: float
    p_value: float
    error: float


@dataclass(frozen=True)
class StandardError:
    """The standard error of a difference, and the degrees of freedom of its estimate (infinite for that over examples)."""

    error: float
    degrees: float

    def p_value(self, difference: float) -> float:
        """The two-sided p-value of a difference, by Student's t."""
        if not self.error:
            return 1.0 if abs(difference) < _ROUNDING else 0.0
        return float(2 * scipy.special.stdtr(self.degrees, -abs(difference) / self.error))

    def detectable(self, alpha: float, power: float) -> float:
        """The true difference that a test at level `alpha` would find significant with this power (approximately)."""
        quantiles = scipy.special.stdtrit(self.degrees, [1 - alpha / 2, power])
        return float(quantiles.sum() * self.error)


def seed_scores(values: Sequence[float]) -> SeedScores:
    """Mean and standard deviation over seeds; ValueError if there are none."""
    if not len(values):
        raise ValueError("There is nothing to average; give a value per seed.")
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return SeedScores(float(np.mean(values)), sd, len(values))


def paired_bootstrap(
    scores: np.ndarray, baseline: np.ndarray, n_resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> Bootstrap:
    """Paired bootstrap of the difference between two means over examples (Efron and Tibshirani, 1993, chapter 16).

    Examples are drawn with replacement, both systems' scores together. The p-value is of the shifted null: how often
    |d* - d| reaches |d|, where d is the difference and d* that of a resample. In simulations it rejects 4 to 6 % of true
    nulls at the level of 5 % from about 100 examples on, 3 to 7 % with 30, and fewer where the systems differ on few
    examples. The interval is the percentile interval of d*; near the level it can disagree with the p-value.

    Args:
        scores, baseline: [seeds, examples] or [examples]; not necessarily of the same number of seeds.
        level: coverage of the interval.
    """
    differences = _differences(scores, baseline)
    return _bootstrap(differences[:, None], lambda sums: sums[..., 0] / len(differences), n_resamples, seed, level)


def paired_t_test(scores: np.ndarray, baseline: np.ndarray) -> float:
    """The two-sided p-value of the paired t-test over two or more examples; scores [seeds, examples] or [examples]."""
    differences = _differences(scores, baseline)
    if len(differences) < 2:
        raise ValueError("A t-test needs two examples or more.")
    if np.ptp(differences) < _ROUNDING:  # no variance to divide by
        return 1.0 if abs(differences[0]) < _ROUNDING else 0.0
    return float(scipy.stats.ttest_1samp(differences, 0).pvalue)


def discordant_pairs(scores: np.ndarray, baseline: np.ndarray) -> tuple[int, int]:
    """The numbers of examples that only the system, and that only the baseline, has right; scores [examples] of 0 or 1."""
    differences = _differences(scores, baseline)
    if np.ndim(scores) > 1 or np.ndim(baseline) > 1 or not np.isin([scores, baseline], (0, 1)).all():
        raise ValueError("Discordant pairs are counted for two single runs with scores of 0 and 1.")
    return int((differences > 0).sum()), int((differences < 0).sum())


def mcnemar(only_system: int, only_baseline: int) -> float:
    """McNemar's test for two single runs, from their `discordant_pairs`: the two-sided mid-p-value of the binomial.

    The mid-p-value (half the probability of the observed count) is closest to its level at every number of pairs
    (Fagerland, Lydersen and Laake, BMC Medical Research Methodology 2013).
    """
    n, fewer = only_system + only_baseline, min(only_system, only_baseline)
    if not n:
        return 1.0
    return float(2 * scipy.stats.binom.cdf(fewer, n, 0.5) - scipy.stats.binom.pmf(fewer, n, 0.5))


def corpus_f1(counts: np.ndarray) -> np.ndarray:
    """F1 [...], 0 to 1, from counts [..., 3] of true positives, false positives and false negatives; 0 without the first."""
    found, wrong, missed = np.moveaxis(np.asarray(counts, dtype=float), -1, 0)
    return np.where(found > 0, 2 * found / np.maximum(2 * found + wrong + missed, 1), 0.0)


def f1_bootstrap(
    counts: np.ndarray, baseline: np.ndarray, n_resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> Bootstrap:
    """Paired bootstrap over sentences of the difference in entity-level F1, averaged over seeds.

    F1 is not a mean over sentences, and entities of one sentence are not independent: whole sentences are drawn, with the
    counts ([seeds, sentences, 3] or [sentences, 3]) of both systems and all seeds, and F1 is computed from the sums (as
    Koehn, EMNLP 2004, does for BLEU). P-value and interval are as for `paired_bootstrap`.
    """
    counts, baseline = (np.asarray(some, dtype=float).reshape(-1, *np.shape(some)[-2:]) for some in (counts, baseline))
    _check_paired(counts.shape[1], baseline.shape[1])
    both = np.concatenate([counts, baseline])  # [seeds of both, sentences, 3]
    of_sentence = both.transpose(1, 0, 2).reshape(both.shape[1], -1)

    def difference(sums: np.ndarray) -> np.ndarray:
        scores = corpus_f1(sums.reshape(*sums.shape[:-1], len(both), 3))
        return scores[..., : len(counts)].mean(axis=-1) - scores[..., len(counts) :].mean(axis=-1)

    return _bootstrap(of_sentence, difference, n_resamples, seed, level)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values, in the same order, adjusted for multiple tests (Holm, Scandinavian Journal of Statistics 1979).

    Controls the family-wise error rate, whatever the dependence between the tests.
    """
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values, kind="stable")
    multiplied = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.maximum.accumulate(multiplied), 1)
    return adjusted.tolist()


def cautions(n_seeds: int | None, n_examples: int | None = None, n_discordant: int | None = None) -> list[str]:
    """Why a difference cannot support a claim about the method, as short phrases; a number is None where unknown.

    `n_seeds` is the smaller one of the two systems; `n_discordant` are the examples on which two single runs differ.
    """
    lacking = (
        (n_seeds, MIN_SEEDS, "seeds"),
        (n_examples, MIN_EXAMPLES, "examples"),
        (n_discordant, MIN_DISCORDANT, "examples on which the two differ"),
    )
    return [f"fewer than {least} {what}" for n, least, what in lacking if n is not None and n < least]


def with_seeds(error: float, score: SeedScores, baseline: SeedScores, correlation: float = 0.0) -> StandardError:
    """The standard error of a difference of means over seeds, which counts examples *and* seeds.

    The squared errors are added: that over examples, and those over the seeds of both systems (a single run adds nothing,
    because its variation is not known), less what both share by their seeds. The degrees of freedom are those of Welch and
    Satterthwaite (Biometrics Bulletin 1946): few where the seeds decide, many where the examples do.

    How many families of comparisons have a false claim at the level of 5 % after Holm's correction, in simulations with an error over
    seeds as large as that over examples, or twice as large, and correlations of 0 to 0.9: with three seeds 4 to 9 % of eight comparisons, 3 to 20 %
    of a hundred, 3 to 33 % of four hundred; with five seeds 4 to 6 %, 4 to 8 % and 4 to 12 %. Where the correlation is 0.9 in half of the
    languages and 0 in the others: 6 to 8 %, 9 to 19 %, 15 to 37 %, and 5 to 6 %, 8 to 11 %, 12 to 22 %.

    Args:
        error: over examples, of the means over seeds.
        correlation: of both systems' scores over the same seeds, from `seed_correlation`.
    """
    of_seeds = [(one.sd**2 / one.n, one.n - 1) for one in (score, baseline) if one.sd]
    own = 1 - correlation
    variance = error**2 + own * sum(part for part, _ in of_seeds)
    uncertain = own**2 * sum(part**2 / degrees for part, degrees in of_seeds)
    return StandardError(float(np.sqrt(variance)), float(variance**2 / uncertain) if uncertain else float("inf"))


def seed_correlation(groups: Iterable[Sequence[tuple[np.ndarray, np.ndarray]]]) -> float:
    """How much two systems' scores over the same seeds go together, 0 to 1: a cautious estimate for all comparisons of a task.

    Runs with the same seed see the same order of data and begin with the same classifier, so that a good seed is often good
    for both systems, and their difference varies less than that of two independent means. Three or five seeds of one comparison
    cannot say how much less (with a paired t-test of each comparison, up to three times as many families have a false claim);
    all comparisons of a task together can: twice the sum of the covariances, by the sum of all variances. One standard error over
    the groups is subtracted (that of a ratio: Cochran, Sampling Techniques, 1977, section 6.4).

    Args:
        groups: one for each language: pairs of scores (system, baseline), [seeds] each, with the same seeds in the same order.
            Fewer than two groups have no standard error, and give 0.
    """
    covariances = [np.sum([np.cov(*pair) for pair in group], axis=0) for group in groups]  # [2, 2] each
    together = np.array([2 * one[0, 1] for one in covariances])
    variances = np.array([np.trace(one) for one in covariances])
    n_groups = len(variances)
    if n_groups < 2 or not variances.sum():
        return 0.0
    correlation = together.sum() / variances.sum()
    squares = ((together - correlation * variances) ** 2).sum()
    error = np.sqrt(squares * n_groups / (n_groups - 1)) / variances.sum()
    return float(np.clip(correlation - error, 0, 1))


def _bootstrap(
    rows: np.ndarray, difference: Callable[[np.ndarray], np.ndarray], n_resamples: int, seed: int, level: float
) -> Bootstrap:
    """Bootstrap over rows [N, columns]; `difference` maps sums over rows [..., columns] to the statistic [...]."""
    measured = difference(rows.sum(axis=0))
    resampled = np.concatenate([difference(sums) for sums in _resampled_sums(rows, n_resamples, seed)])
    # (What was measured counts as one of the resamples, and a tie against the difference.)
    as_far = np.abs(resampled - measured) >= abs(measured) - _ROUNDING
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    p_value = float((1 + as_far.sum()) / (1 + n_resamples))
    return Bootstrap(float(measured), float(low), float(high), p_value, float(resampled.std()))


def _resampled_sums(rows: np.ndarray, n_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Sums over N rows drawn with replacement from rows [N, columns]; yields [some resamples, columns]."""
    distinct, kind, number = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    n, n_distinct = len(rows), len(distinct)
    generator = np.random.default_rng(seed)
    at_once = max(1, _DRAWN_AT_ONCE // n)
    for begin in range(0, n_resamples, at_once):
        n_now = min(at_once, n_resamples - begin)
        if n_distinct <= n // _MANY:
            times = generator.multinomial(n, number / n, size=n_now)
        else:
            drawn = kind.ravel()[generator.integers(n, size=(n_now, n))] + n_distinct * np.arange(n_now)[:, None]
            times = np.bincount(drawn.ravel(), minlength=n_now * n_distinct).reshape(n_now, n_distinct)
        yield times.astype(float) @ distinct


def _differences(scores: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """[examples]: system minus baseline, in the mean over seeds."""
    scores, baseline = (np.atleast_2d(np.asarray(some, dtype=float)).mean(axis=0) for some in (scores, baseline))
    _check_paired(len(scores), len(baseline))
    # (Rounding, so that equal differences are equal after a mean over three seeds.)
    return np.round(scores - baseline, 12)


def _check_paired(n: int, n_baseline: int) -> None:
    if n != n_baseline or not n:
        raise ValueError(
            f"Scores of {n} examples and of {n_baseline} cannot be paired; give those of the same examples."
        )
