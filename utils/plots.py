"""Figures: readable in print, in greyscale and by the colour-blind."""

import os
from collections.abc import Mapping
from pathlib import Path

import matplotlib


matplotlib.use("Agg")  # no screen needed

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import MaxNLocator, PercentFormatter  # noqa: E402


# Okabe and Ito (2008), the darker ones; lines differ in mark and stroke as well.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
_MARKS = ("o", "s", "^", "D", "v", "P", "X")
_STROKES = ("-", "--", ":", "-.")


def plot_by_layer(
    panels: Mapping[str, Mapping[str, Mapping[int, float]]], path: str | Path, title: str, quantity: str = "accuracy"
) -> None:
    """Curves over the layers, a panel for each group and a line for each model.

    Args:
        panels: panel title → label of the line → layer → share between 0 and 1.
        path: PNG (or whatever its ending says), written as a whole.
        title: of the figure.
        quantity: what the vertical axis shows.
    """
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1 + 2.6 * columns, 1.3 + 2.4 * rows), sharex=True, sharey=True, squeeze=False
    )
    for axis, (panel, lines) in zip(axes.flat, panels.items()):
        for number, (label, curve) in enumerate(lines.items()):
            layers = sorted(curve)
            axis.plot(
                layers,
                [curve[layer] for layer in layers],
                label=label,
                color=_COLOURS[number % len(_COLOURS)],
                marker=_MARKS[number % len(_MARKS)],
                linestyle=_STROKES[number % len(_STROKES)],
                markersize=4,
            )
        axis.set_title(panel, fontsize=10)
        axis.grid(alpha=0.3)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel(f"{quantity} (%)")
    for axis in axes[-1]:
        axis.set_xlabel("layer (0: embeddings)")
    figure.suptitle(title, fontsize=11)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), frameon=False)
    figure.set_layout_engine("constrained")
    _save(figure, Path(path))


def _save(figure: plt.Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        figure.savefig(temporary, dpi=150)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        plt.close(figure)
