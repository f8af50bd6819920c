"""How certain a result is: the interval of a mean over examples, or of F1."""

from collections.abc import Sequence

import numpy as np


def confidence_interval(contributions: Sequence[float | tuple[int, int, int]]) -> tuple[float, float]:
    """The 95 % interval of a mean of scores, or of F1 of counts (true positives, false positives, false negatives).

    By the normal approximation to a ratio of two sums over the examples.
    """
    values = np.array(contributions, dtype=float)
    if values.ndim == 2:  # F1 = 2 TP / (2 TP + FP + FN)
        above, below = 2 * values[:, 0], values @ [2, 1, 1]
    else:
        above, below = values, np.ones(len(values))
    if not below.any():
        return 0.0, 0.0
    ratio = above.sum() / below.sum()
    half = 1.96 * float(np.sqrt(np.square(above - ratio * below).sum())) / below.sum()
    return max(0.0, ratio - half), min(1.0, ratio + half)
