"""How certain a result is: the interval of a mean over examples, or of F1."""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np


# Of the normal distribution, for 95 %.
_Z = NormalDist().inv_cdf(0.975)


def confidence_interval(contributions: Sequence[float | tuple[int, int, int]]) -> tuple[float, float]:
    """The 95 % interval of a mean of scores (0 to 1), or of F1 of counts (true positives, false positives, false negatives).

    Wilson's score interval (JASA 1927; recommended by Brown, Cai and DasGupta, Statistical Science 2001): it holds its level
    also near 0 and 1, and has a width there. It takes the number of independent observations of 0 or 1 that have the variance
    of the ratio of two sums over the examples (the effective size of Korn and Graubard, Survey Methodology 1998); where
    the variance is zero, that number is that of the examples that count.
    """
    values = np.array(contributions, dtype=float)
    if values.ndim == 2:  # F1 = 2 TP / (2 TP + FP + FN)
        above, below = 2 * values[:, 0], values @ [2, 1, 1]
    else:
        above, below = values, np.ones(len(values))
    if not below.any():
        return 0.0, 0.0
    ratio = above.sum() / below.sum()
    variance = np.square(above - ratio * below).sum() / below.sum() ** 2
    n = float(np.count_nonzero(below))
    # (At 0 and 1 there is no variance, of scores or by rounding.)
    if 1e-9 < ratio < 1 - 1e-9 and variance > 1e-18:
        n = ratio * (1 - ratio) / variance
    return _wilson(float(ratio), n)


def _wilson(share: float, n: float) -> tuple[float, float]:
    scale = 1 + _Z**2 / n
    center = (share + _Z**2 / (2 * n)) / scale
    half = _Z / scale * (share * (1 - share) / n + _Z**2 / (4 * n**2)) ** 0.5
    return max(0.0, min(share, center - half)), min(1.0, max(share, center + half))
