"""The charts of pages: small enough for a phone, readable without color, light or dark as the page is."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from utils.core.figures import STYLE, figure_text, line_style


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Line → x (a step or a layer) → y.
Lines = Mapping[str, Mapping[Any, float]]
# A value and the ends of its interval, or the value alone.
Estimate = Sequence[float]
# Series → name → estimate.
Dots = Mapping[str, Mapping[str, Estimate]]
# In inches; that of `dot_chart` grows with its rows.
_WIDTH, _HEIGHT, _ROW = 4.6, 2.6, 0.26
# A logarithmic axis pays if the largest value is more than this many times the smallest.
_MUCH = 20
# The colors of a figure that a page chooses itself.
_OF_PAGE = {"#000000": "currentcolor", "#ffffff": "var(--paper)", "#dddddd": "var(--rule)"}


def line_chart(lines: Lines, x_label: str, y_label: str, log: bool = False) -> "Figure":
    """A line per name. With `log` the axis is logarithmic (without values that it does not have) if they differ much."""
    from matplotlib.ticker import MaxNLocator

    positive = [y for line in lines.values() for y in line.values() if y > 0]
    log = log and max(positive, default=1) > _MUCH * min(positive, default=1)
    figure, axis = _chart(_HEIGHT + 0.17 * len(lines) * (len(lines) > 1))
    for number, (name, line) in enumerate(lines.items()):
        shown = {x: y for x, y in sorted(line.items()) if y > 0 or not log}
        every = max(1, len(shown) // 12)
        axis.plot(list(shown), list(shown.values()), label=figure_text(name), markevery=every, **line_style(number))
    axis.set_yscale("log" if log else "linear")
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    if len(lines) > 1:
        figure.legend(loc="outside lower left", handlelength=3.2)
    return figure


def dot_chart(dots: Dots, x_label: str, from_zero: bool = False) -> "Figure":
    """A row per name with a dot for each series and a bar for its interval; `from_zero` draws a line from 0 to the dot."""
    names = list(dict.fromkeys(name for series in dots.values() for name in series))
    n = len(dots)
    figure, axis = _chart(0.7 + _ROW * len(names) * max(1, 0.7 * n) + 0.17 * n * (n > 1))
    for number, (series, estimates) in enumerate(dots.items()):
        places = [names.index(name) + 0.6 * ((number + 0.5) / n - 0.5) for name in estimates]
        values = [one[0] for one in estimates.values()]
        ends = [(min(one), max(one)) for one in estimates.values()]
        reach = [[v - low for v, (low, _) in zip(values, ends)], [high - v for v, (_, high) in zip(values, ends)]]
        style = {**line_style(number), "linestyle": "none"}
        axis.errorbar(values, places, xerr=reach, label=figure_text(series), elinewidth=1.4, capsize=3, **style)
        if from_zero:
            axis.hlines(places, 0, values, color=style["color"], linewidth=1.4)
    if from_zero:
        axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(names)), [figure_text(name) for name in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlabel(x_label)
    axis.grid(True, axis="x")
    axis.grid(False, axis="y")
    if n > 1:
        figure.legend(loc="outside lower left")
    return figure


def _chart(height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def drawn(draw: Callable[[], "Figure"]) -> "Figure":
    """The figure, in the style of all figures."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        return draw()


def as_svg(draw: Callable[[], "Figure"], salt: str) -> str:
    """A figure as an SVG element for a page, with the page's own colors and letters; the same figure gives the same text.

    Args:
        salt: different for every figure of a page, whose identifiers it makes different.
    """
    from matplotlib import rc_context

    file = io.BytesIO()
    with rc_context({**STYLE, "svg.fonttype": "none", "svg.hashsalt": salt}):
        draw().savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue().decode("utf-8")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' (xmlns|xmlns:xlink|version)="[^"]*"', "", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"<defs>\s*<style.*?</defs>", "", svg, flags=re.DOTALL)  # (it would be one of the whole page)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "sans-serif", svg)
    for color, of_page in _OF_PAGE.items():
        svg = svg.replace(color, of_page)
    return svg.strip()


def describe_lines(lines: Lines, x_label: str) -> str:
    """What a line chart shows, for those who do not see it."""
    said = []
    for name, line in lines.items():
        (first, start), *_, (last, end) = [*sorted(line.items()), max(line.items())]
        said.append(f"{name}: {start:.4g} at {first:g}, {end:.4g} at {last:g}")
    return f"Lines by {x_label.lower()}. {'; '.join(said)}."


def describe_dots(dots: Dots) -> str:
    """What a dot chart shows, for those who do not see it."""
    said = []
    for series, estimates in dots.items():
        values = ", ".join(
            f"{name} {one[0]:.1f}" + (f" ({min(one):.1f} to {max(one):.1f})" if len(one) > 1 else "")
            for name, one in estimates.items()
        )
        said.append(f"{series}: {values}")
    return f"Dots. {'; '.join(said)}."
