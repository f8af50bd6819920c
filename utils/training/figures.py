"""The figure of the losses over steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.core.figures import STYLE, line_style
from utils.core.files import atomic_write


def plot_losses(log_history: Sequence[Mapping[str, float]], path: str | Path) -> bool:
    """Draw the losses in `TrainerState.log_history` as a PNG file: a line each, on a logarithmic axis.

    Returns False, and draws nothing, if no loss was logged at two steps or more.
    """
    steps: dict[str, dict[float, float]] = {}
    for entry in log_history:
        for name, value in entry.items():
            if (name == "loss" or name.endswith("_loss")) and name != "train_loss" and value > 0:
                steps.setdefault(name.replace("_", " "), {})[entry["step"]] = value
    curves = {name: curve for name, curve in steps.items() if len(curve) > 1}
    if not curves:
        return False
    with rc_context(STYLE):
        figure = Figure(figsize=(6.0, 3.2), layout="constrained")
        axis = figure.subplots()
        for number, (name, curve) in enumerate(curves.items()):
            every = max(1, len(curve) // 12)
            axis.plot(list(curve), list(curve.values()), label=name, markevery=every, **line_style(number))
        axis.set_yscale("log")
        axis.set_xlabel("Step")
        axis.set_ylabel("Loss")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside right upper", handlelength=3.2)
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format="png", dpi=150)
    return True
