"""Places in a JSON value: every one of them, and a copy with another value there."""

import json
from collections.abc import Iterator
from typing import Any


MISSING: Any = object()  # stands for a place that is taken away


def places_in(
    value: Any, place: tuple[str | int, ...] = (), n_items: int | None = None
) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every place in a JSON value, as the names and numbers that lead to it, and what is there; of lists the first `n_items`."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:n_items]) if isinstance(value, list) else ()
    for name, one in items:
        yield (*place, name), one
        yield from places_in(one, (*place, name), n_items)


def changed(value: Any, place: tuple[str | int, ...], other: Any) -> Any:
    """A copy of a JSON value with another value at a place; without it if the other is `MISSING`."""
    value = json.loads(json.dumps(value))
    *most, last = place
    inner = value
    for name in most:
        inner = inner[name]
    if other is MISSING:
        del inner[last]
    else:
        inner[last] = other
    return value
