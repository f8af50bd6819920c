"""Figures, readable in print and by the colour-blind: every line has its own colour, marker and stroke."""

import os
from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.errors import InputError
from utils.records import written_whole


# Okabe and Ito's palette (jfly.uni-koeln.de/color), without its yellow, which is too pale for lines.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
_STROKES = ("-", "--", ":", "-.", (0, (5, 1)))

# Inches.
_PANEL = (3.2, 2.4)
_STYLE = {
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
# Two kinds of distances in one panel: a filled shape and an outline differ in greyscale, too.
_RELATED = {"histtype": "stepfilled", "color": _COLOURS[0], "alpha": 0.75, "linewidth": 0}
_UNRELATED = {"histtype": "step", "edgecolor": _COLOURS[1], "linewidth": 1.2, "hatch": "////"}
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
    width = max(n_columns * _PANEL[0], 4.8)
    n_across = _legend_columns(models, width)
    with rc_context(_STYLE):
        height = n_rows * _PANEL[1] + 0.18 * ceil(len(models) / n_across) + 0.4
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
        for number, (axis, (name, curves)) in enumerate(zip(axes.flat, panels.items())):
            axis.set_title(name, loc="left")
            _draw_curves(axis, curves, models, scale=100)
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
            _add_legend(figure, axes, models, n_across)
        with written_whole(path) as temporary:
            figure.savefig(temporary, format="png", dpi=150)


def plot_losses(log_history: Sequence[Mapping[str, float]], path: str | Path) -> bool:
    """Draw how the losses fell in training: a line each, on a logarithmic axis.

    Args:
        log_history: of `TrainerState`: what was logged, with its `step`.
        path: the PNG file; it is written as a whole or not at all.

    Returns:
        Whether there was anything to draw: a loss logged at two steps or more.
    """
    steps: dict[str, dict[int, float]] = {}
    for entry in log_history:
        for name, value in entry.items():
            if (name == "loss" or name.endswith("_loss")) and name != "train_loss" and value > 0:
                steps.setdefault(name.replace("_", " "), {})[entry["step"]] = value
    curves = {name: curve for name, curve in steps.items() if len(curve) > 1}
    if not curves:
        return False
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.0, 3.2), layout="constrained")
        axis = figure.subplots()
        for number, (name, curve) in enumerate(curves.items()):
            every = max(1, len(curve) // 12)
            axis.plot(list(curve), list(curve.values()), label=name, markevery=every, **_line_style(number))
        axis.set_yscale("log")
        axis.set_xlabel("Step")
        axis.set_ylabel("Loss")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside right upper", handlelength=3.2)
        with written_whole(path) as temporary:
            figure.savefig(temporary, format="png", dpi=150)
    return True


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
    with rc_context(_STYLE):
        figure = Figure(figsize=(2 * len(distances) * _PANEL[0], len(models) * 1.5 + 1.3), layout="constrained")
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
        _save_png_and_pdf(figure, path)


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
    n_across = _legend_columns(models, width)
    with rc_context(_STYLE):
        height = len(panels) * _PANEL[1] + 0.18 * ceil(len(models) / n_across) + 0.4
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(len(panels), len(columns), sharex=True, squeeze=False)
        for row, (distance, measures) in zip(axes, panels.items()):
            medians = [axis for axis, name in zip(row, columns) if name.startswith("Median")]
            for axis, name in zip(row, columns):
                scale = 1 if axis in medians else 100
                axis.set_title(name if scale == 1 else f"{name} (%)", loc="left")
                _draw_curves(axis, measures[name], models, scale)
                for model, ends in ((intervals or {}).get(distance, {}).get(name, {})).items():
                    layers = sorted(ends)
                    low, high = ([scale * ends[layer][end] for layer in layers] for end in (0, 1))
                    colour = _line_style(models.index(model))["color"]
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
            _add_legend(figure, axes, models, n_across)
        _save_png_and_pdf(figure, path)


def plot_differences(
    panels: Mapping[str, Mapping[str, Mapping[str, tuple[float, float, float]]]], path: str | Path, title: str = ""
) -> None:
    """Draw differences from a baseline with their intervals: a panel per task, a group per language, a mark per system.

    Args:
        panels: panel title → system → language → difference, low and high end, 1 being everything.
        path: the figure without its ending; it is written as PNG and PDF.
        title: stands above all panels.
    """
    systems = list(dict.fromkeys(name for of_task in panels.values() for name in of_task))
    n_columns = min(2, len(panels))
    n_rows = ceil(len(panels) / n_columns)
    width = 2 * n_columns * 2.0
    n_across = _legend_columns(systems, width)
    with rc_context(_STYLE):
        height = n_rows * _PANEL[1] + 0.18 * ceil(len(systems) / n_across) + 0.4
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(n_rows, n_columns, squeeze=False)
        for axis, (name, of_task) in zip(axes.flat, panels.items()):
            axis.set_title(name, loc="left")
            languages = sorted({language for of_system in of_task.values() for language in of_system})
            for system, of_system in of_task.items():
                number = systems.index(system)
                shift = (number - (len(systems) - 1) / 2) * 0.8 / len(systems)
                places = [languages.index(language) + shift for language in of_system]
                values = np.array(list(of_system.values())) * 100
                reach = np.maximum(np.abs(values[:, 1:].T - values[:, 0]), 0)
                style = {**_line_style(number), "linestyle": "none"}
                axis.errorbar(places, values[:, 0], yerr=reach, label=system, elinewidth=1, capsize=2, **style)
            axis.axhline(0, color="black", linewidth=0.8)
            axis.set_xticks(range(len(languages)), languages)
            axis.set_ylabel("Points")
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        if title:
            figure.suptitle(title, fontsize=10)
        marks = {handle.get_label(): handle for axis in axes.flat for handle in axis.get_legend_handles_labels()[0]}
        figure.legend([marks[name] for name in systems], systems, loc="outside lower center", ncols=n_across)
        _save_png_and_pdf(figure, path)


def label_models(names: Sequence[str]) -> dict[str, str]:
    """Short names for models in tables and figures: the last part of each path, or more parts where that is not enough.

    Returns:
        Label → Hub id or folder, in the order given.

    Raises:
        InputError: if a model is named twice.
    """
    paths = [Path(name).resolve() if os.path.isdir(name) else Path(name) for name in names]
    parts = [[part for part in path.parts if part != path.anchor] for path in paths]
    for n in range(1, max(map(len, parts)) + 1):
        labels = ["-".join(names_of_path[-n:]) for names_of_path in parts]
        if len(set(labels)) == len(names):
            return dict(zip(labels, names))
    twice = next(name for i, name in enumerate(names) if parts[i] in parts[:i])
    raise InputError(f"The model {twice} is named twice; name every model once.")


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


def _draw_curves(axis: Axes, curves: Mapping[str, Mapping[int, float]], models: Sequence[str], scale: float) -> None:
    """Draw a line per model, which looks the same in every panel."""
    for model, curve in curves.items():
        style = _line_style(models.index(model))
        axis.plot(sorted(curve), [scale * curve[k] for k in sorted(curve)], label=model, clip_on=False, **style)


def _legend_columns(models: Sequence[str], width: float) -> int:
    """How many models stand beside each other in a legend so many inches wide."""
    return max(1, min(len(models), int(width / (0.8 + 0.07 * max(map(len, models))))))


def _add_legend(figure: Figure, axes: np.ndarray, models: Sequence[str], n_across: int) -> None:
    """Name the models once, below all panels."""
    lines = {line.get_label(): line for axis in axes.flat for line in axis.lines}
    place = {"loc": "outside lower center", "ncols": n_across, "handlelength": 3.2}
    figure.legend([lines[model] for model in models], models, **place)


def _save_png_and_pdf(figure: Figure, path: str | Path) -> None:
    for ending, options in (("png", {"dpi": 150}), ("pdf", {"metadata": {"CreationDate": None}})):
        with written_whole(f"{path}.{ending}") as temporary:
            figure.savefig(temporary, format=ending, **options)


def _line_style(number: int) -> dict[str, object]:
    # The cycles differ in length, so that the eighth line does not look like the first.
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": _STROKES[number % len(_STROKES)],
        "markerfacecolor": "white" if number % 2 else _COLOURS[number % len(_COLOURS)],
    }
