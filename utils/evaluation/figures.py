"""Figures of retrieval and of distances."""

from collections.abc import Iterable, Mapping
from math import ceil
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.core.figures import (
    COLOURS,
    PANEL,
    STYLE,
    add_legend,
    draw_curves,
    legend_columns,
    line_style,
    save_png_and_pdf,
)
from utils.core.files import atomic_write


# Two kinds of distances in one panel: a filled shape and an outline differ in greyscale, too.
_RELATED = {"histtype": "stepfilled", "color": COLOURS[0], "alpha": 0.75, "linewidth": 0}
_UNRELATED = {"histtype": "step", "edgecolor": COLOURS[1], "linewidth": 1.2, "hatch": "////"}
_BINS = 40
_DISTANCE_NAMES = {"l2": "L2 distance", "cosine": "Cosine distance"}


def plot_accuracy_by_layer(
    panels: Mapping[str, Mapping[str, Mapping[int, float]]],
    path: str | Path,
    title: str = "",
    ylabel: str = "Accuracy (%)",
    xlabel: str = "Layer (0: embeddings)",
) -> None:
    """Draw how accuracy changes from layer to layer: a panel per direction, a line per model.

    Args:
        panels: panel title → model → layer → accuracy from 0 to 1. Two models need not have the same layers.
        path: the PNG file; it is written as a whole or not at all.
        title: stands above all panels.
        ylabel, xlabel: what the axes show.
    """
    n_columns = {1: 1, 2: 2, 3: 3, 4: 2}.get(len(panels), 4)
    n_rows = ceil(len(panels) / n_columns)
    models = list(dict.fromkeys(model for curves in panels.values() for model in curves))
    layers = [layer for curves in panels.values() for curve in curves.values() for layer in curve]
    highest = max(value for curves in panels.values() for curve in curves.values() for value in curve.values())
    width = max(n_columns * PANEL[0], 4.8)
    n_across = legend_columns(models, width)
    with rc_context(STYLE):
        height = n_rows * PANEL[1] + 0.18 * ceil(len(models) / n_across) + 0.4
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
        for number, (axis, (name, curves)) in enumerate(zip(axes.flat, panels.items())):
            axis.set_title(name, loc="left")
            draw_curves(axis, curves, models, scale=100)
            if number % n_columns == 0:
                axis.set_ylabel(ylabel)
            if number + n_columns >= len(panels):  # nothing below it
                axis.set_xlabel(xlabel)
                axis.tick_params(labelbottom=True)
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        axes[0, 0].set_ylim(0, min(100, max(108 * highest, 1)))
        axes[0, 0].set_xlim(min(layers) - 0.3, max(layers) + 0.3)
        axes[0, 0].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        if title:
            figure.suptitle(title, fontsize=10)
        if len(models) > 1:
            add_legend(figure, axes, models, n_across)
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format="png", dpi=150)


def plot_distances(
    models: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], path: str | Path, title: str = ""
) -> None:
    """Draw histograms of the distances of related and of unrelated words, and of their differences, link by link.

    A row per model, two columns per distance with the same scale for all models. Lines mark the medians (whole:
    related, or difference; dashed: unrelated); dots mark no difference.

    Args:
        models: model → distance (`l2`, `cosine`) → distances [N] of related words, of unrelated words.
        path: the figure without its ending; it is written as PNG and PDF.
        title: stands above all panels.
    """
    distances = list(dict.fromkeys(name for of_model in models.values() for name in of_model))
    with rc_context(STYLE):
        figure = Figure(figsize=(2 * len(distances) * PANEL[0], len(models) * 1.5 + 1.3), layout="constrained")
        axes = figure.subplots(len(models), 2 * len(distances), sharex="col", sharey="col", squeeze=False)
        for column, distance in enumerate(distances):
            label = _DISTANCE_NAMES.get(distance, distance)
            found = {model: of_model[distance] for model, of_model in models.items() if distance in of_model}
            bins = _bins(values for pair in found.values() for values in pair)
            difference_bins = _bins(unrelated - related for related, unrelated in found.values())
            for row, model in enumerate(models):
                both, difference = axes[row, 2 * column : 2 * column + 2]
                related, unrelated = found[model]
                _draw_histogram(both, related, bins, "related words", "-", **_RELATED)
                _draw_histogram(both, unrelated, bins, "unrelated words", "--", **_UNRELATED)
                style = {"histtype": "stepfilled", "color": "#888888", "linewidth": 0}
                _draw_histogram(difference, unrelated - related, difference_bins, "difference", "-", **style)
                difference.axvline(0, color="black", linewidth=0.8, linestyle=":")
            axes[-1, 2 * column].set_xlabel(label)
            axes[-1, 2 * column + 1].set_xlabel(f"{label}: unrelated - related")
        for row, model in enumerate(models):
            axes[row, 0].set_ylabel("Links (%)")
            axes[row, 0].set_title(model, loc="left")
        if title:
            figure.suptitle(title, fontsize=10)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        save_png_and_pdf(figure, path)


def plot_distances_by_layer(
    panels: Mapping[str, Mapping[str, Mapping[str, Mapping[int, float]]]],
    path: str | Path,
    title: str = "",
    intervals: Mapping[str, Mapping[str, Mapping[str, Mapping[int, tuple[float, float]]]]] | None = None,
    chance: Mapping[str, float] | None = None,
) -> None:
    """Draw how measures change from layer to layer: a row per distance, a column per measure, a line per model.

    Args:
        panels: distance → measure → model → layer → value. Measures whose names begin with `Median` share their scale
            within a row; all others are shares from 0 to 1, drawn in per cent.
        path: the figure without its ending; it is written as PNG and PDF.
        title: stands above all panels.
        intervals: the same with low and high ends, drawn as bands; measures without are left out.
        chance: by measure, a share that chance alone reaches: its scale begins there, unless something is below.
    """
    columns = list(dict.fromkeys(name for row in panels.values() for name in row))
    models = list(dict.fromkeys(model for row in panels.values() for curves in row.values() for model in curves))
    width = len(columns) * 2.6
    n_across = legend_columns(models, width)
    with rc_context(STYLE):
        height = len(panels) * PANEL[1] + 0.18 * ceil(len(models) / n_across) + 0.4
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(len(panels), len(columns), sharex=True, squeeze=False)
        for row, (distance, measures) in zip(axes, panels.items()):
            medians = [axis for axis, name in zip(row, columns) if name.startswith("Median")]
            for axis, name in zip(row, columns):
                scale = 1 if axis in medians else 100
                axis.set_title(name if scale == 1 else f"{name} (%)", loc="left")
                draw_curves(axis, measures[name], models, scale)
                for model, ends in ((intervals or {}).get(distance, {}).get(name, {})).items():
                    layers = sorted(ends)
                    low, high = ([scale * ends[layer][end] for layer in layers] for end in (0, 1))
                    colour = line_style(models.index(model))["color"]
                    axis.fill_between(layers, low, high, color=colour, alpha=0.2, linewidth=0)
            highest = max((axis.dataLim.ymax for axis in medians), default=0)
            for axis, name in zip(row, columns):
                lowest = min(100 * (chance or {}).get(name, 0), axis.dataLim.ymin)
                axis.set_ylim(*((0, 1.08 * highest) if axis in medians else (lowest, 100)))
            row[0].set_ylabel(_DISTANCE_NAMES.get(distance, distance))
        for axis in axes[-1]:
            axis.set_xlabel("Layer (0: embeddings)")
        axes[0, 0].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        if title:
            figure.suptitle(title, fontsize=10)
        if len(models) > 1:
            add_legend(figure, axes, models, n_across)
        save_png_and_pdf(figure, path)


def _bins(values: Iterable[np.ndarray]) -> np.ndarray:
    """Edges of bars that hold all values."""
    ends = np.array([(of_model.min(), of_model.max()) for of_model in values])
    return np.histogram_bin_edges(ends, _BINS)


def _draw_histogram(
    axis: Axes, values: np.ndarray, bins: np.ndarray, label: str, median: object, **style: object
) -> None:
    """Draw the values in per cent of their number, and a line in this stroke at their median."""
    axis.hist(values, bins, weights=np.full(len(values), 100 / len(values)), label=label, **style)
    axis.axvline(np.median(values), color="black", linewidth=1, linestyle=median)
