"""Looking at figures."""

from matplotlib.image import imread


def inked(path) -> float:
    """Share of a picture that is not white."""
    return float((imread(path)[..., :3].min(axis=2) < 0.9).mean())
