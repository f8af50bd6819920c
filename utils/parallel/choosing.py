"""Choosing the links and pairs that adjustment learns from."""

import logging
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow
import pyarrow.compute
from datasets import Dataset, Features, concatenate_datasets

from utils.parallel.formats import LINKS
from utils.parallel.streams import PairStream


logger = logging.getLogger(__name__)


def one_to_one(links: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """The links neither of whose words has another link, in their order."""
    links = list(dict.fromkeys((i, j) for i, j in links))
    source, english = Counter(i for i, _ in links), Counter(j for _, j in links)
    return [(i, j) for i, j in links if source[i] == 1 and english[j] == 1]


def informative_links(
    source: Sequence[str], english: Sequence[str], links: Sequence[Sequence[int]]
) -> list[tuple[int, int]]:
    """One-to-one links between words that differ (case counts): the links that adjustment learns from.

    One-to-one is judged on the unfiltered links, as in the published code: a link between identical words still
    makes another link of one of them ambiguous.
    """
    return [(i, j) for i, j in one_to_one(links) if source[i] != english[j]]


def choose_pairs(
    bitext: Dataset,
    max_words: int = 64,
    num_proc: int | None = None,
    link: Callable[[Dataset], Dataset] | None = None,
) -> Dataset:
    """Keep the pairs and links that adjustment learns from (Efimov et al., 2023, section 3; the published code).

    Pairs with a side longer than `max_words` words go, then all links but the `informative_links`, then the pairs
    that have no link left.

    Args:
        bitext: pairs with links, or without.
        max_words: of the longer side.
        num_proc: processes that share the work.
        link: adds the links where there are none, of the pairs that are not too long.
    """
    short = (
        bitext.with_format("arrow")
        .filter(_fits, batched=True, fn_kwargs={"max_words": max_words}, num_proc=num_proc, desc="Dropping long pairs")
        .with_format(None)
    )
    linked = link(short) if link else short
    chosen = linked.map(
        _keep_informative,
        batched=True,
        features=Features({**linked.features, "links": LINKS}),
        num_proc=num_proc,
        desc="Choosing links",
    )
    logger.info(
        f"{len(chosen):,} of {len(bitext):,} pairs kept: {len(bitext) - len(short):,} are longer than {max_words} "
        f"words on a side, {len(short) - len(chosen):,} have no one-to-one link between different words."
    )
    return chosen


def _fits(pairs: pyarrow.Table, max_words: int) -> list[bool]:
    lengths = [pyarrow.compute.list_value_length(pairs[side]).to_numpy() for side in ("source", "english")]
    return (np.maximum(*lengths) <= max_words).tolist()


def _keep_informative(batch: Mapping[str, list]) -> dict[str, list]:
    """The pairs of a batch that have informative links, with these."""
    links = [informative_links(*pair) for pair in zip(batch["source"], batch["english"], batch["links"])]
    kept = [row for row, pair_links in enumerate(links) if pair_links]
    columns = {**batch, "links": links}
    return {name: [values[row] for row in kept] for name, values in columns.items()}


# Of the pairs that are probably needed, so many are asked for at once, lest more are linked than needed …
_CAUTION = 0.9
# … but so many at least, lest it takes forever.
_FEWEST = 256


def sample_pairs(
    bitext: Dataset | PairStream,
    max_pairs: int | None,
    seed: int,
    usable: Callable[[Dataset], Dataset] = lambda pairs: pairs,
) -> Dataset:
    """`max_pairs` random pairs (all of them if there are no more, or for None), in random order.

    Where not all are wanted, pairs are looked at in random order until there are enough that can be used: that is a
    uniform sample of all that can, for the work of little more than itself. (Of a stream as uniform as its shuffling.)

    Args:
        bitext: what is drawn from.
        max_pairs: how many (None: all).
        seed: of the draw.
        usable: the pairs of a part that can be used. It judges each pair alone. Where all pairs are wanted, it gets them
            in their own order, so that what it caches serves every seed.
    """
    max_pairs = sys.maxsize if max_pairs is None else max_pairs
    n_pairs = len(bitext) if isinstance(bitext, Dataset) else None
    if n_pairs is not None and max_pairs >= n_pairs:
        return usable(bitext).shuffle(seed=seed)
    shuffled = bitext.shuffle(seed=seed)
    parts, n_found, n_looked, at_end = [], 0, 0, False
    while n_found < max_pairs and not at_end:
        probably_needed = (max_pairs - n_found) * (n_looked + 1) / (n_found + 1)
        end = n_looked + max(_FEWEST, int(_CAUTION * probably_needed))
        part = shuffled.select(range(n_looked, end if n_pairs is None else min(end, n_pairs)))
        parts.append(usable(part))
        n_looked, n_found = n_looked + len(part), n_found + len(parts[-1])
        # (A stream of which nothing can be used might have no end.)
        at_end = n_looked < end or (n_pairs is None and not n_found)
    sample = concatenate_datasets(parts).select(range(min(max_pairs, n_found)))
    of_all = f" of {n_pairs:,}" if n_pairs is not None else ""
    logger.info(f"{len(sample):,} pairs drawn, for which {n_looked:,}{of_all} were looked at.")
    return sample
