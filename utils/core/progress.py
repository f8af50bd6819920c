"""Progress of long steps: a bar on a terminal, and an occasional line where the output is a file."""

import os
import sys
from collections.abc import Iterable
from functools import wraps
from time import monotonic
from typing import Any

from tqdm import tqdm


# Seconds until the bar of a step appears on a terminal, and until its first line in a file: shorter steps have none.
_FIRST_BAR, _FIRST_LINE = 1, 5
# Seconds between lines: at least the first number, and at least this share of the time that the script has taken.
_BETWEEN_LINES, _SHARE = 30, 0.05


def progress(
    items: Iterable[Any] | None = None,
    description: str | None = None,
    total: float | None = None,
    unit: str = "",
    **options: Any,
) -> tqdm:
    """`tqdm` with a description first, for a step that can take more than five seconds; of several processes the first shows it.

    Args:
        description: None for no bar.
        unit: what is counted, in the plural; nothing where the description says it.
        options: others of `tqdm`, such as `disable`, `initial`, `leave` and `unit_scale`.
    """
    options = {"delay": _FIRST_BAR, "dynamic_ncols": True, **options}
    options["disable"] = options.get("disable") or description is None or not is_first_process()
    return tqdm(items, description, total, unit=f" {unit}" if unit else "it", **options)


def time_left(bar: Any) -> str:
    """How long the rest of a bar takes at its present pace, as `M:SS` or `H:MM:SS`; `?` before the pace is known."""
    facts = bar.format_dict
    average = (facts["n"] - facts["initial"]) / facts["elapsed"] if facts["elapsed"] else 0
    rate = facts["rate"] or average
    return bar.format_interval((facts["total"] - facts["n"]) / rate) if rate else "?"


def lines_unless_terminal() -> None:
    """If standard error is not a terminal, let every bar write lines of text, instead of one that is drawn again and again.

    All libraries draw their bars by tqdm, so that those of Trainer, of `datasets` and of downloads become lines, too.
    """
    if sys.stderr is None or sys.stderr.isatty():
        return
    for name, method in {"__init__": _begin, "display": _display, "clear": _clear, "close": _close}.items():
        setattr(tqdm, name, method)


# The methods of tqdm that are replaced.
DRAWING = {name: getattr(tqdm, name) for name in ("__init__", "display", "clear", "close")}
_BEGIN, _END = DRAWING["__init__"], DRAWING["close"]
# When the script began, and when the next line is due.
_clock = {"begin": monotonic(), "next": 0.0}


@wraps(_BEGIN)
def _begin(bar: Any, *args: Any, disable: bool | None = False, **options: Any) -> None:
    bar.n_lines, bar.first_line = 0, monotonic() + _FIRST_LINE
    # (None stands for a bar that is for terminals only. With `gui`, tqdm itself writes nothing.)
    _BEGIN(bar, *args, **{**options, "gui": True}, disable=bool(disable) or not is_first_process())


def _display(bar: Any, *_: Any, **__: Any) -> bool:
    """Write a line if it is time for one. A bar within another one waits until it is time for the next line of any bar."""
    now = monotonic()
    if now >= bar.first_line and (now >= _clock["next"] or not (bar.n_lines or bar.pos)):
        _write(bar)
        _clock["next"] = now + max(_BETWEEN_LINES, _SHARE * (now - _clock["begin"]))
    return False


def _clear(bar: Any, nolock: bool = False) -> None:
    """Lines stay."""


@wraps(_END)
def _close(bar: Any) -> None:
    if not getattr(bar, "disable", True) and bar.n_lines and not bar.pos:
        _write(bar, done=True)
    _END(bar)


def _write(bar: Any, done: bool = False) -> None:
    facts = bar.format_dict
    n, total, unit = facts["n"], facts["total"], "" if facts["unit"] == "it" else f" {facts['unit'].strip()}"
    shown, of_total = (bar.format_sizeof(k) if facts["unit_scale"] else f"{k:,}" for k in (n, total or 0))
    elapsed = bar.format_interval(facts["elapsed"])
    counted = f"{shown}{unit}" if not total or n >= total else f"{100 * n / total:.0f} % ({shown} of {of_total}{unit})"
    if done:
        rest = "done" if not total or n >= total else "ended"
    else:
        rest = f"{time_left(bar)} left" if total else "so far"
    status = f"{counted} in {elapsed}, {rest}"
    bar.fp.write(f"{bar.desc.removesuffix(': ') or 'Progress'}: {status}\n")
    bar.fp.flush()
    bar.n_lines += 1


def is_first_process() -> bool:
    """Whether this is the only process of a run, or the first one."""
    return os.environ.get("RANK", "0") == "0"
