"""The word links that several models make of the same sentence pairs: what differs, and how they agree with given links."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import mean

import numpy as np

from utils.core.result_tables import ResultTable
from utils.parallel.aligners.base import Links, ScoredLinks


@dataclass(frozen=True)
class ViewedPairs:
    """Sentence pairs, split into words, and perhaps the right links."""

    language: str
    anchor: str
    numbers: list[int]  # of the pairs in the corpus, from 1
    source: list[list[str]]
    english: list[list[str]]
    gold: list[Links] | None = None


@dataclass(frozen=True)
class ModelLinks:
    """What one model makes of `ViewedPairs`: the links with their cosines, and the cosines of all words of the first pairs."""

    label: str
    layer: int
    links: list[ScoredLinks]
    matrices: list[np.ndarray] = field(default_factory=list)  # [source words, English words], nan without vector


@dataclass(frozen=True)
class LinkSummary:
    """The links of one model in numbers; None where there is nothing to compare them with."""

    links: int
    mean_similarity: float | None
    changed_pairs: int | None  # those with other links than the first model's
    added: int | None
    removed: int | None
    precision: float | None
    recall: float | None
    error_rate: float | None


def agreement(
    links: Sequence[Links],
    sure: Sequence[set[tuple[int, int]]],
    possible: Sequence[set[tuple[int, int]]],
) -> tuple[float, float, float]:
    """Precision, recall and alignment error rate of links, summed over all pairs (Och and Ney, 2003)."""
    n_links, n_sure = sum(map(len, links)), sum(map(len, sure))
    in_sure = sum(len(gold.intersection(found)) for found, gold in zip(links, sure))
    in_possible = sum(len(gold.intersection(found)) for found, gold in zip(links, possible))
    return (
        in_possible / max(1, n_links),
        in_sure / max(1, n_sure),
        1 - (in_sure + in_possible) / max(1, n_links + n_sure),
    )


def changes(before: ScoredLinks, after: ScoredLinks) -> tuple[Links, Links]:
    """The links of a pair that were added, and those that were removed."""
    return sorted(after.keys() - before.keys()), sorted(before.keys() - after.keys())


def summarize(pairs: ViewedPairs, models: Sequence[ModelLinks]) -> list[LinkSummary]:
    """The numbers of every model; changes are from the first one. All gold links count as sure ones."""
    gold = None if pairs.gold is None else [set(links) for links in pairs.gold]
    summaries = []
    for number, model in enumerate(models):
        changed = [changes(*pair) for pair in zip(models[0].links, model.links)] if number else None
        found = agreement([list(links) for links in model.links], gold, gold) if gold else (None, None, None)
        scores = [score for links in model.links for score in links.values()]
        summaries.append(
            LinkSummary(
                len(scores),
                mean(scores) if scores else None,
                None if changed is None else sum(bool(added or removed) for added, removed in changed),
                None if changed is None else sum(len(added) for added, _ in changed),
                None if changed is None else sum(len(removed) for _, removed in changed),
                *found,
            )
        )
    return summaries


def summary_table(models: Sequence[ModelLinks], summaries: Sequence[LinkSummary]) -> ResultTable:
    """A row per model; precision, recall and error rate in percent."""
    columns = [
        "model",
        "layer",
        "links",
        "mean cosine",
        "pairs changed",
        "added",
        "removed",
        "precision",
        "recall",
        "AER",
    ]
    rows = []
    for model, summary in zip(models, summaries):
        shares = (summary.precision, summary.recall, summary.error_rate)
        rows.append(
            [
                model.label,
                model.layer,
                f"{summary.links:,}",
                None if summary.mean_similarity is None else f"{summary.mean_similarity:.3f}",
                *(None if n is None else f"{n:,}" for n in (summary.changed_pairs, summary.added, summary.removed)),
                *(None if share is None else f"{100 * share:.1f}" for share in shares),
            ]
        )
    return ResultTable(columns, rows).without_empty_columns()
