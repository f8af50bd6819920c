"""What predicts the gain: points, rank correlations, their figure and their table."""

import numpy as np
import pytest
from scipy import stats

from helpers.figures import inked
from utils.experiments.figures import plot_gains
from utils.experiments.predictors import Point, correlate


def points(x, y, languages=None):
    names = languages or [f"l{k}" for k in range(len(x))]
    return [Point(name, float(a), float(b)) for name, a, b in zip(names, x, y)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [False, True])
def test_the_correlation_is_spearmans(seed, ties):
    generator = np.random.default_rng(seed)
    x, noise = generator.normal(size=(2, 30))
    x = x.round() if ties else x
    found = correlate(points(x, x + noise))
    assert found.rho == pytest.approx(stats.spearmanr(x, x + noise).statistic)
    assert found.n_languages == 30
    assert -1 <= found.low < found.rho < found.high <= 1
    perfect = correlate(points(x.argsort().argsort(), -x.argsort().argsort()))
    assert (perfect.rho, perfect.low, perfect.high) == (-1, -1, -1)


def test_arms_of_a_language_are_one_point():
    """However many arms there are, the languages are what is counted."""
    x, y = np.random.default_rng(1).normal(size=(2, 8))
    once = correlate(points(x, y))
    noise = np.random.default_rng(2).normal(size=(4, 8))
    noise -= noise.mean(axis=0)
    names = [f"l{k}" for k in range(8)] * 4
    often = correlate(points(np.tile(x, 4), (y + noise).ravel(), names))
    assert (often.rho, often.low, often.high, often.n_languages) == pytest.approx((once.rho, once.low, once.high, 8))


@pytest.mark.parametrize("n_languages", [6, 8, 12])
@pytest.mark.parametrize("n_arms", [1, 6])
def test_the_interval_excludes_no_relation_seldom(n_languages, n_arms):
    """A predictor of a language that has no relation to what its arms gain."""
    generator, n_wrong = np.random.default_rng(3), 0
    names = [f"l{k}" for k in range(n_languages)] * n_arms
    for _ in range(1000):
        x, gain = generator.normal(size=(2, n_languages))
        gains = gain + 0.3 * generator.normal(size=(n_arms, n_languages))
        found = correlate(points(np.tile(x, n_arms), gains.ravel(), names))
        n_wrong += found.low > 0 or found.high < 0
    assert n_wrong / 1000 < 0.08


@pytest.mark.parametrize(("x", "y"), [([], []), (range(5), range(5)), ([1] * 9, range(9)), (range(9), [0] * 9)])
def test_too_little_to_correlate(x, y):
    assert correlate(points(x, y)) is None
    assert correlate(points(range(20), range(20), [f"l{k % 5}" for k in range(20)])) is None


@pytest.mark.usefixtures("figures")
def test_the_figure(tmp_path):
    plot_gains({"NER": {"a": points(range(5), range(5))}, "POS": {"b": points([1], [2])}}, tmp_path / "gains")
    assert inked(tmp_path / "gains.png") > 0
    assert (tmp_path / "gains.pdf").exists()
