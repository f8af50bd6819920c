"""Figures, readable in print and by the colour-blind: every line has its own colour, marker and stroke."""

import os
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path

from matplotlib import rc_context
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
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "legend.frameon": False,
}


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
    n_across = max(1, min(len(models), int(width / (0.8 + 0.07 * max(map(len, models))))))
    with rc_context(_STYLE):
        height = n_rows * _PANEL[1] + 0.18 * ceil(len(models) / n_across) + 0.4
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
        for number, (axis, (name, curves)) in enumerate(zip(axes.flat, panels.items())):
            axis.set_title(name, loc="left")
            for model, curve in curves.items():
                style = _line_style(models.index(model))
                axis.plot(sorted(curve), [100 * curve[k] for k in sorted(curve)], label=model, clip_on=False, **style)
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
            lines = {line.get_label(): line for axis in axes.flat for line in axis.lines}
            place = {"loc": "outside lower center", "ncols": n_across, "handlelength": 3.2}
            figure.legend([lines[model] for model in models], models, **place)
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


def _line_style(number: int) -> dict[str, object]:
    # The cycles differ in length, so that the eighth line does not look like the first.
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": _STROKES[number % len(_STROKES)],
        "markerfacecolor": "white" if number % 2 else _COLOURS[number % len(_COLOURS)],
    }
