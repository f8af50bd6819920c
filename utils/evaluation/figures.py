"""Figures of retrieval and of word distances."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.core.figures import (
    COLORS,
    PANEL,
    STYLE,
    Curves,
    add_legend,
    draw_curves,
    figure_text,
    line_style,
    make_panels,
    save_png_and_pdf,
)
from utils.core.files import atomic_write
from utils.evaluation.distance_report import DistancePanels
from utils.evaluation.word_distances import WordDistances


# Two kinds of distances in one panel: a filled shape and an outline also differ in grayscale.
_RELATED = {"histtype": "stepfilled", "color": COLORS[0], "alpha": 0.75, "linewidth": 0}
_UNRELATED = {"histtype": "step", "edgecolor": COLORS[1], "linewidth": 1.2, "hatch": "////"}
_DIFFERENCE = {"histtype": "stepfilled", "color": "#888888", "linewidth": 0}
_BINS = 40
# Share of links reached by chance, where the scale begins unless there are lower values.
_CHANCE = {"Related word nearer": 0.5}
_DISTANCE_NAMES = {"l2": "L2 distance", "cosine": "Cosine distance"}


def plot_accuracy_by_layer(panels: Mapping[str, Curves], path: str | Path, title: str = "") -> None:
    """Draw accuracy by layer: a panel per direction or measure, a line per model.

    Args:
        panels: panel title → model → layer → accuracy, 0 to 1. Models may have different layers.
        path: the PNG file, written atomically.
    """
    # (Three panels of one language, two directions and MEXA, stand side by side.)
    n_columns = 3 if len(panels) % 3 == 0 else {1: 1, 2: 2, 4: 2}.get(len(panels), 4)
    models = list(dict.fromkeys(model for curves in panels.values() for model in curves))
    layers = [layer for curves in panels.values() for curve in curves.values() for layer in curve]
    highest = max(value for curves in panels.values() for curve in curves.values() for value in curve.values())
    with rc_context(STYLE):
        width = max(n_columns * PANEL[0], 4.8)
        figure, axes = make_panels(len(panels), n_columns, width, models, title, sharex=True, sharey=True)
        for number, (axis, (name, curves)) in enumerate(zip(axes.flat, panels.items())):
            axis.set_title(figure_text(name), loc="left")
            draw_curves(axis, curves, models, scale=100)
            if number % n_columns == 0:
                axis.set_ylabel("Accuracy (%)")
            if number + n_columns >= len(panels):  # the lowest panel of its column
                axis.set_xlabel("Layer (0: embeddings)")
                axis.tick_params(labelbottom=True)
        axes[0, 0].set_ylim(0, min(100, max(108 * highest, 1)))
        axes[0, 0].set_xlim(min(layers) - 0.3, max(layers) + 0.3)
        axes[0, 0].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        if len(models) > 1:
            add_legend(figure, axes, models)
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format="png", dpi=150)


def plot_distances(models: Mapping[str, Mapping[str, WordDistances]], path: str | Path, title: str = "") -> None:
    """Draw histograms of the distances of related and of unrelated words, and of their differences, link by link.

    A row per model, two columns per distance with the same scale for all models. Lines mark the medians (solid:
    related, or difference; dashed: unrelated); the dotted line marks a difference of 0.

    Args:
        models: model → distance (`l2`, `cosine`) → what was measured.
        path: the figure without its suffix; it is written as PNG and PDF.
    """
    distances = list(dict.fromkeys(name for of_model in models.values() for name in of_model))
    with rc_context(STYLE):
        figure = Figure(figsize=(2 * len(distances) * PANEL[0], len(models) * 1.5 + 1.3), layout="constrained")
        axes = figure.subplots(len(models), 2 * len(distances), sharex="col", sharey="col", squeeze=False)
        for column, distance in enumerate(distances):
            label = _DISTANCE_NAMES.get(distance, distance)
            measured = [of_model[distance] for of_model in models.values()]
            bins = _bins([values for found in measured for values in (found.related, found.unrelated)])
            difference_bins = _bins([found.difference for found in measured])
            for found, (both, difference) in zip(measured, axes[:, 2 * column : 2 * column + 2]):
                _draw_histogram(both, found.related, bins, "related words", "-", _RELATED)
                _draw_histogram(both, found.unrelated, bins, "unrelated words", "--", _UNRELATED)
                _draw_histogram(difference, found.difference, difference_bins, "difference", "-", _DIFFERENCE)
                difference.axvline(0, color="black", linewidth=0.8, linestyle=":")
            axes[-1, 2 * column].set_xlabel(label)
            axes[-1, 2 * column + 1].set_xlabel(f"{label}: unrelated - related")
        for axis, model in zip(axes[:, 0], models):
            axis.set_ylabel("Links (%)")
            axis.set_title(figure_text(model), loc="left")
        if title:
            figure.suptitle(figure_text(title), fontsize=10)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        save_png_and_pdf(figure, path)


def _bins(values: Sequence[np.ndarray]) -> np.ndarray:
    """Edges of equal bars that cover all values."""
    return np.histogram_bin_edges(np.concatenate(values), _BINS)


def _draw_histogram(
    axis: Axes, values: np.ndarray, bins: np.ndarray, label: str, stroke: str, style: dict[str, Any]
) -> None:
    """Draw the values in percent of their number, and a line at their median."""
    axis.hist(values, list(bins), weights=np.full(len(values), 100 / len(values)), label=label, **style)
    axis.axvline(float(np.median(values)), color="black", linewidth=1, linestyle=stroke)


def plot_distances_by_layer(panels: DistancePanels, path: str | Path, title: str = "") -> None:
    """Draw measures by layer: a row per distance, a column per measure, a line per model, intervals as bands.

    Args:
        panels: as from `curves_by_layer`. Measures whose names begin with `Median` share their scale within a row; all
            others are shares from 0 to 1, drawn in percent.
        path: the figure without its suffix; it is written as PNG and PDF.
    """
    columns = list(dict.fromkeys(name for row in panels.values() for name in row))
    models = list(dict.fromkeys(model for row in panels.values() for curves in row.values() for model in curves))
    with rc_context(STYLE):
        n_panels, width = len(panels) * len(columns), len(columns) * 2.6
        figure, axes = make_panels(n_panels, len(columns), width, models, title, sharex=True)
        for row, (distance, measures) in zip(axes, panels.items()):
            medians = [axis for axis, name in zip(row, columns) if name.startswith("Median")]
            for axis, name in zip(row, columns):
                scale = 1 if axis in medians else 100
                axis.set_title(name if scale == 1 else f"{name} (%)", loc="left")
                values = {model: {k: v[0] for k, v in curve.items()} for model, curve in measures[name].items()}
                draw_curves(axis, values, models, scale)
                for model, curve in measures[name].items():
                    layers = [layer for layer in sorted(curve) if len(curve[layer]) == 3]
                    low, high = ([scale * curve[layer][end] for layer in layers] for end in (1, 2))
                    color = line_style(models.index(model))["color"]
                    axis.fill_between(layers, low, high, color=color, alpha=0.2, linewidth=0)
            highest = max((axis.dataLim.ymax for axis in medians), default=0)
            for axis, name in zip(row, columns):
                lowest = min(100 * _CHANCE.get(name, 0), axis.dataLim.ymin)
                axis.set_ylim(*((0, 1.08 * highest) if axis in medians else (lowest, 100)))
            row[0].set_ylabel(_DISTANCE_NAMES.get(distance, distance))
        for axis in axes[-1]:
            axis.set_xlabel("Layer (0: embeddings)")
        axes[0, 0].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        if len(models) > 1:
            add_legend(figure, axes, models)
        save_png_and_pdf(figure, path)
