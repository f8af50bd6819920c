"""The figure of differences from a baseline."""

from collections.abc import Mapping
from math import ceil
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from utils.core.figures import PANEL, STYLE, legend_columns, line_style, save_png_and_pdf


def plot_differences(
    panels: Mapping[str, Mapping[str, Mapping[str, tuple[float, float, float]]]], path: str | Path, title: str = ""
) -> None:
    """Draw differences from a baseline with their intervals: one panel per task, one group per language, one mark per system.

    Args:
        panels: panel title → system → language → difference, low and high end of its interval, -1 to 1.
        path: of the figure, without suffix; it is written as PNG and PDF.
        title: of the whole figure.
    """
    systems = list(dict.fromkeys(name for of_task in panels.values() for name in of_task))
    n_columns = min(2, len(panels))
    n_rows = ceil(len(panels) / n_columns)
    width = 2 * n_columns * 2.0
    n_across = legend_columns(systems, width)
    with rc_context(STYLE):
        height = n_rows * PANEL[1] + 0.18 * ceil(len(systems) / n_across) + 0.4
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
                style = {**line_style(number), "linestyle": "none"}
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
        save_png_and_pdf(figure, path)
