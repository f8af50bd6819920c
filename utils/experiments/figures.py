"""The figures of reports: differences from a baseline, and gains by what may predict them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context

from utils.core.figures import STYLE, add_legend, figure_text, line_style, make_panels, save_png_and_pdf
from utils.experiments.predictors import Point


# Panel title → system → language → difference, low and high end of its interval, -1 to 1.
Panels = Mapping[str, Mapping[str, Mapping[str, tuple[float, float, float]]]]


def plot_differences(
    panels: Panels,
    path: str | Path,
    title: str = "",
    baselines: Mapping[str, Mapping[str, float]] | None = None,
    order: Sequence[str] = (),
) -> None:
    """Draw differences from a baseline with their intervals: one panel per task, one group per language, one mark per system.

    With the scores of the baseline (0 to 1, by panel title and language), systems stand at their scores above and below it.
    Languages are in the given order, others after them. `path` has no suffix: the figure is written as PNG and PDF.
    """
    systems = list(dict.fromkeys(name for of_task in panels.values() for name in of_task))
    n_columns = min(2, len(panels))
    with rc_context(STYLE):
        figure, axes = make_panels(len(panels), n_columns, 4.0 * n_columns, systems, title)
        for axis, (name, of_task) in zip(axes.flat, panels.items()):
            axis.set_title(figure_text(name), loc="left")
            found = {language for of_system in of_task.values() for language in of_system}
            languages = [*filter(found.__contains__, order), *sorted(found.difference(order))]
            levels = {} if baselines is None else baselines[name]
            for system, of_system in of_task.items():
                number = systems.index(system)
                shift = (number - (len(systems) - 1) / 2) * 0.8 / len(systems)
                places = [languages.index(language) + shift for language in of_system]
                level = np.array([levels.get(one, 0.0) for one in of_system])
                values = 100 * (np.array(list(of_system.values())) + level[:, None])
                reach = np.maximum(np.abs(values[:, 1:].T - values[:, 0]), 0)
                style = {**line_style(number), "linestyle": "none"}
                axis.errorbar(
                    places, values[:, 0], yerr=reach, label=figure_text(system), elinewidth=1, capsize=2, **style
                )
            if levels:
                middle = np.arange(len(languages))
                heights = [100 * levels[one] for one in languages]
                axis.hlines(heights, middle - 0.45, middle + 0.45, "black", linewidth=1.2)
            else:
                axis.axhline(0, color="black", linewidth=0.8)
            axis.set_xticks(range(len(languages)), languages)
            axis.set_ylabel("%" if levels else "Points")
        add_legend(figure, axes, systems)
        save_png_and_pdf(figure, path)


def plot_gains(found: dict[str, dict[str, list[Point]]], path: str | Path) -> None:
    """Draw the gain against every predictor: one panel for each, one mark per task. `path` has no suffix."""
    tasks, predictors = list(found), list(dict.fromkeys(name for of_task in found.values() for name in of_task))
    with rc_context(STYLE):
        columns = min(2, len(predictors))
        figure, axes = make_panels(
            len(predictors), columns, 4.0 * columns, tasks, "Gain on tasks, by language and arm"
        )
        for axis, predictor in zip(axes.flat, predictors):
            for number, (task, of_task) in enumerate(found.items()):
                points = of_task.get(predictor, [])
                style = {**line_style(number), "linestyle": "none"}
                x, y = [point.predictor for point in points], [point.gain for point in points]
                axis.plot(x, y, label=figure_text(task), clip_on=False, **style)
            axis.axhline(0, color="black", linewidth=0.8)
            axis.set_xlabel(figure_text(predictor))
            axis.set_ylabel("Points")
        add_legend(figure, axes, tasks)
        save_png_and_pdf(figure, path)
