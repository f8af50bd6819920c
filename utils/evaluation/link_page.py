"""A page that shows word links in a browser: one HTML file that needs no server and no other file.

Everything that comes from data is JSON in the page, which the script there inserts as text.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from utils.core.files import json_text, write_text
from utils.core.page import html_page
from utils.evaluation.word_links import LinkSummary, ModelLinks, ViewedPairs


_TEMPLATE = Path(__file__).with_name("link_page_template")
# The byte of a cosine of a word without vector; the others are 0 (the lowest of the matrix) to 254 (the highest).
_NO_VECTOR = 255


def page_data(
    pairs: ViewedPairs, models: Sequence[ModelLinks], summaries: Sequence[LinkSummary], record: Mapping[str, Any]
) -> dict[str, Any]:
    """What the page shows, in a compact form, because there are thousands of pairs.

    A pair has its number `n`, its words (`s`, `e`), per model its links as one list source, English, cosine, source, …
    (`m`), and perhaps the right links, source, English, source, … (`g`), and a packed matrix per model (`x`).
    """
    rows = []
    for k, number in enumerate(pairs.numbers):
        row: dict[str, Any] = {"n": number, "s": pairs.source[k], "e": pairs.english[k]}
        row["m"] = [
            [part for (i, j), score in model.links[k].items() for part in (i, j, round(score, 4))] for model in models
        ]
        if pairs.gold is not None:
            row["g"] = [part for link in pairs.gold[k] for part in link]
        if all(k < len(model.matrices) for model in models):
            row["x"] = [pack(model.matrices[k]) for model in models]
        rows.append(row)
    about = [
        {"label": model.label, "layer": model.layer, **asdict(summary)} for model, summary in zip(models, summaries)
    ]
    return {"language": pairs.language, "anchor": pairs.anchor, "models": about, "pairs": rows, "record": record}


def pack(matrix: np.ndarray) -> list[Any]:
    """A matrix of cosines as its lowest and highest value and, in base64, a byte per cosine, row by row.

    The error is at most 1/508 of the difference between the two values.
    """
    known = np.isfinite(matrix)
    low, high = (float(matrix[known].min()), float(matrix[known].max())) if known.any() else (0.0, 0.0)
    steps = np.rint((np.where(known, matrix, low) - low) * (254 / (high - low or 1)))
    packed = np.where(known, steps, _NO_VECTOR).astype(np.uint8)
    return [round(low, 4), round(high, 4), base64.b64encode(packed.tobytes()).decode()]


def link_page(data: Mapping[str, Any]) -> str:
    """The whole page. No text of the data can end the element that holds it."""
    text = json_text(data, separators=(",", ":")).replace("<", r"\u003c")
    body, style, *scripts = (
        (_TEMPLATE / name).read_text(encoding="utf-8").strip()
        for name in ("links.html", "links.css", "links.js", "pair.js", "page.js")
    )
    return html_page("Word links", body.replace("[[data]]", text), style, "\n".join(scripts))


def write_link_page(path: str | Path, data: Mapping[str, Any]) -> None:
    """Write the page atomically."""
    write_text(path, link_page(data))
