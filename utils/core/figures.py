"""The style of all figures: readable in print and by the colour-blind."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.core.files import atomic_write


# Okabe and Ito's palette (jfly.uni-koeln.de/color), without its yellow, which is too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
_STROKES = ("-", "--", ":", "-.", (0, (5, 1)))
# Inches.
PANEL = (3.2, 2.4)
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "hatch.linewidth": 0.5,
}


def draw_curves(axis: Axes, curves: Mapping[str, Mapping[int, float]], models: Sequence[str], scale: float) -> None:
    """Draw a line per model, which looks the same in every panel."""
    for model, curve in curves.items():
        style = line_style(models.index(model))
        axis.plot(sorted(curve), [scale * curve[k] for k in sorted(curve)], label=model, clip_on=False, **style)


def legend_columns(models: Sequence[str], width: float) -> int:
    """How many models stand beside each other in a legend so many inches wide."""
    return max(1, min(len(models), int(width / (0.8 + 0.07 * max(map(len, models))))))


def add_legend(figure: Figure, axes: np.ndarray, models: Sequence[str], n_across: int) -> None:
    """Name the models once, below all panels."""
    lines = {line.get_label(): line for axis in axes.flat for line in axis.lines}
    place = {"loc": "outside lower center", "ncols": n_across, "handlelength": 3.2}
    figure.legend([lines[model] for model in models], models, **place)


def save_png_and_pdf(figure: Figure, path: str | Path) -> None:
    for ending, options in (("png", {"dpi": 150}), ("pdf", {"metadata": {"CreationDate": None}})):
        with atomic_write(f"{path}.{ending}") as temporary:
            figure.savefig(temporary, format=ending, **options)


def line_style(number: int) -> dict[str, object]:
    # The cycles differ in length, so that the eighth line does not look like the first.
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": _STROKES[number % len(_STROKES)],
        "markerfacecolor": "white" if number % 2 else COLOURS[number % len(COLOURS)],
    }
