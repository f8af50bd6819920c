"""The style of all figures, readable in print and by the color-blind, and panels with a common legend."""

import re
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.core.files import atomic_write
from utils.core.result_tables import shorten


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Model → layer → value.
Curves = Mapping[str, Mapping[int, float]]
# Okabe and Ito's palette (jfly.uni-koeln.de/color), without its yellow, which is too pale for lines.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
_STROKES = ("-", "--", ":", "-.", (0, (5, 1)))
# Width and height of a panel in inches.
PANEL = (3.2, 2.4)
# For `matplotlib.rc_context`, around everything from the making of a figure to its saving.
STYLE: dict[Any, Any] = {
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


def make_panels(
    n_panels: int, n_columns: int, width: float, labels: Sequence[str], title: str, **shared: Any
) -> "tuple[Figure, np.ndarray]":
    """A figure `width` inches wide and its axes [rows, columns], with room below for a legend of the labels.

    `shared`: `sharex`, `sharey`, whether all panels have the same axis.
    """
    from matplotlib.figure import Figure

    n_rows = ceil(n_panels / n_columns)
    height = n_rows * PANEL[1] + 0.18 * ceil(len(labels) / _legend_columns(labels, width)) + 0.4
    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(figure_text(title), fontsize=10)
    axes = figure.subplots(n_rows, n_columns, squeeze=False, **shared)  # type: ignore[call-overload]
    for unused in axes.flat[n_panels:]:
        unused.set_visible(False)
    return figure, axes


def add_legend(figure: "Figure", axes: np.ndarray, labels: Sequence[str]) -> None:
    """One legend for all panels, below them."""
    marks: dict[Any, Any] = {}
    for axis in axes.flat:
        marks |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels())}
    columns, shown = _legend_columns(labels, figure.get_figwidth()), [figure_text(label) for label in labels]
    figure.legend(
        [marks[label] for label in shown], shown, loc="outside lower center", ncols=columns, handlelength=3.2
    )


def figure_text(name: str) -> str:
    """A name as matplotlib shows it unchanged: without formulas between `$`, in legends also with an underscore first."""
    return re.sub("^_", " _", shorten(name, 80)).replace("$", r"\$")


def _legend_columns(labels: Sequence[str], width: float) -> int:
    """Number of entries that fit side by side in a legend of this width in inches."""
    return max(1, min(len(labels), int(width / (0.8 + 0.07 * max(map(len, labels))))))


def draw_curves(axis: "Axes", curves: Curves, models: Sequence[str], scale: float) -> None:
    """Draw a line per model, in the same style in every panel; values are multiplied by `scale`."""
    for model, curve in curves.items():
        style = line_style(models.index(model))
        axis.plot(
            sorted(curve), [scale * curve[k] for k in sorted(curve)], label=figure_text(model), clip_on=False, **style
        )


def line_style(number: int) -> dict[str, Any]:
    """Color, marker and stroke of the line with this number, as keyword arguments of `Axes.plot`."""
    # The cycles differ in length, so that the eighth line does not look like the first.
    return {
        "color": COLORS[number % len(COLORS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": _STROKES[number % len(_STROKES)],
        "markerfacecolor": "white" if number % 2 else COLORS[number % len(COLORS)],
    }


def save_png_and_pdf(figure: "Figure", path: str | Path) -> None:
    """Write `PATH.png` and `PATH.pdf`, each atomically; the same figure gives the same bytes."""
    formats: dict[str, dict[str, Any]] = {"png": {"dpi": 150}, "pdf": {"metadata": {"CreationDate": None}}}
    for ending, options in formats.items():
        with atomic_write(f"{path}.{ending}") as temporary:
            figure.savefig(temporary, format=ending, **options)
