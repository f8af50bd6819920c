"""What predicts the gain: points, rank correlations, their figure and their table."""

import numpy as np
import pytest
from scipy import stats

from helpers.figures import inked
from utils.experiments.figures import plot_gains
from utils.experiments.predictors import Point, correlate


def points(x, y):
    return [Point(float(a), float(b)) for a, b in zip(x, y)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [False, True])
def test_the_correlation_is_spearmans(seed, ties):
    generator = np.random.default_rng(seed)
    x, noise = generator.normal(size=(2, 30))
    x = x.round() if ties else x
    found = correlate(points(x, x + noise))
    assert found.rho == pytest.approx(stats.spearmanr(x, x + noise).statistic)
    assert found.n_points == 30
    assert -1 <= found.low < found.rho < found.high <= 1
    assert found == correlate(points(x, x + noise))
    assert correlate(points(x, -x)).rho == pytest.approx(-1)


def test_resamples_are_ranked_as_scipy_does():
    """The interval is that of a loop over the same resamples."""
    x, y = np.random.default_rng(1).normal(size=(2, 12)).round(1)
    rows = np.random.default_rng(0).integers(12, size=(2000, 12))
    rhos = [stats.spearmanr(x[row], y[row]).statistic for row in rows]
    found = correlate(points(x, y))
    assert (found.low, found.high) == pytest.approx(np.quantile(rhos, (0.025, 0.975)))


@pytest.mark.parametrize(("x", "y"), [([], []), (range(5), range(5)), ([1] * 9, range(9)), (range(9), [0] * 9)])
def test_too_little_to_correlate(x, y):
    assert correlate(points(x, y)) is None


@pytest.mark.usefixtures("figures")
def test_the_figure(tmp_path):
    plot_gains({"NER": {"a": points(range(5), range(5))}, "POS": {"b": points([1], [2])}}, tmp_path / "gains")
    assert inked(tmp_path / "gains.png") > 0
    assert (tmp_path / "gains.pdf").exists()
