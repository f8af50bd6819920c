"""Choosing the links and pairs that adjustment learns from."""

import logging
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from datasets import Dataset, Features, Value, concatenate_datasets

from utils.alignment.pairs import ROW_FEATURES, PairEncoder
from utils.core.cache import cache_key
from utils.core.columns import list_lengths
from utils.parallel.aligners.base import Links
from utils.parallel.data_sets import PairStream
from utils.parallel.formats import LINKS, SIDES
from utils.parallel.linking import Linker


logger = logging.getLogger(__name__)

# The names of the encoded columns beside those of the pair, as both have a column `links`.
ENCODED = {name: "links_of_vectors" if name == "links" else name for name in ROW_FEATURES}

# Pairs that are chosen together where no linker says how many it wants.
_BATCH = 1000


def one_to_one(links: Sequence[Sequence[int]]) -> Links:
    """The links neither of whose words has another link, in their order."""
    links = list(dict.fromkeys((i, j) for i, j in links))
    source, english = Counter(i for i, _ in links), Counter(j for _, j in links)
    return [(i, j) for i, j in links if source[i] == 1 and english[j] == 1]


def informative_links(source: Sequence[str], english: Sequence[str], links: Sequence[Sequence[int]]) -> Links:
    """One-to-one links between words that differ (case-sensitive): the links that adjustment learns from.

    One-to-one is judged on the unfiltered links, as in the published code: a link between identical words still
    makes another link of one of them ambiguous.
    """
    return [(i, j) for i, j in one_to_one(links) if source[i] != english[j]]


def choose_pairs(
    bitext: Dataset,
    max_words: int = 64,
    num_proc: int | None = None,
    linker: Linker | None = None,
    encoder: PairEncoder | None = None,
    language: str | None = None,
) -> Dataset:
    """Link pairs, keep those that adjustment learns from, and encode them (Efimov et al., 2023, section 3).

    As in the published code, pairs with more than `max_words` words on a side are dropped, then all links but the
    `informative_links`, then the pairs that have no link left. One pass does it all and writes one Arrow file.

    Without links only pairs with an empty side are dropped, and the column `links` is empty.

    Args:
        bitext: columns `source` and `english`, and perhaps `links`.
        max_words: the longest sentence, on either side.
        num_proc: number of processes.
        linker: links the words of the pairs that are not too long.
        encoder: adds columns to `source`, `english` and `links`, under their names in `ENCODED`.
        language: what to write into a column `language`, if there is to be one.
    """
    features = Features({**SIDES, "links": LINKS})
    if encoder:
        features.update({ENCODED[name]: feature for name, feature in ROW_FEATURES.items()})
    if language:
        features["language"] = Value("string")
    lengths = np.maximum(list_lengths(bitext, "source"), list_lengths(bitext, "english"))
    short = bitext.select(np.flatnonzero(lengths <= max_words))
    if len(short):
        chosen = short.map(
            _choose_batch,
            batched=True,
            batch_size=linker.batch_size if linker else _BATCH,
            features=features,
            remove_columns=sorted(set(short.column_names) - set(features)),  # scores, checksums
            num_proc=linker.num_proc(num_proc) if linker else num_proc,
            fn_kwargs={"linker": linker, "encoder": encoder, "language": language, "code": cache_key(_choose_batch)},
            desc=f"Linking words ({linker.name})" if linker else "Choosing links",
        )
    else:
        chosen = Dataset.from_dict({name: [] for name in features}, features)
    linked = linker or "links" in bitext.column_names
    lack = "have no one-to-one link between different words" if linked else "have an empty side"
    logger.info(
        f"{len(chosen):,} of {len(bitext):,} pairs kept: {len(bitext) - len(short):,} are longer than {max_words} "
        f"words on a side, {len(short) - len(chosen):,} {lack}."
    )
    return chosen


def _choose_batch(
    batch: Mapping[str, list], linker: Linker | None, encoder: PairEncoder | None, language: str | None, code: str
) -> dict[str, list]:
    """Rows are cached under `code`."""
    all_links = (linker(batch) if linker else batch).get("links")
    if all_links is None:
        links: list[Links] = [[] for _ in batch["source"]]
        kept = [row for row, pair in enumerate(zip(batch["source"], batch["english"])) if all(pair)]
    else:
        links = [informative_links(*pair) for pair in zip(batch["source"], batch["english"], all_links)]
        kept = [row for row, of_pair in enumerate(links) if of_pair]
    columns = {side: [batch[side][row] for row in kept] for side in ("source", "english")}
    columns["links"] = [links[row] for row in kept]
    if encoder:
        columns |= {ENCODED[name]: values for name, values in encoder(columns).items()}
    if language:
        columns["language"] = [language] * len(kept)
    return columns


# Ask for fewer pairs than are probably needed, so that few are linked unnecessarily …
_CAUTION = 0.9
# … but for at least this many, so that rare usable pairs are found in few rounds.
_FEWEST = 256


def sample_pairs(
    bitext: Dataset | PairStream,
    max_pairs: int | None,
    seed: int,
    usable: Callable[[Dataset], Dataset] = lambda pairs: pairs,
) -> Dataset:
    """Random pairs in random order: `max_pairs` of those that can be used, or all of them (None).

    If not all are wanted, pairs are looked at in random order until enough usable ones are found: a uniform sample of
    all usable pairs (of a stream, as uniform as its shuffling), for little more work than the sample itself.

    `usable` returns those pairs of a part that can be used, and judges each pair alone. If all pairs are wanted, it
    gets them in their original order, so that its cache serves every seed.
    """
    max_pairs = sys.maxsize if max_pairs is None else max_pairs
    if isinstance(bitext, PairStream):
        n_pairs, shuffled = sys.maxsize, bitext.shuffle(seed)
    elif max_pairs >= len(bitext):
        return usable(bitext).shuffle(seed=seed, keep_in_memory=True)
    else:
        n_pairs, shuffled = len(bitext), bitext.shuffle(seed=seed, keep_in_memory=True)
    parts: list[Dataset] = []
    n_found, n_looked, at_end = 0, 0, False
    while n_found < max_pairs and not at_end:
        probably_needed = (max_pairs - n_found) * (n_looked + 1) / (n_found + 1)
        end = n_looked + max(_FEWEST, int(_CAUTION * probably_needed))
        part = shuffled.select(range(n_looked, min(end, n_pairs)))
        parts.append(usable(part))
        n_looked, n_found = n_looked + len(part), n_found + len(parts[-1])
        # (A stream without usable pairs at its beginning might have no end.)
        at_end = n_looked < end or (n_pairs == sys.maxsize and not n_found)
    sample = concatenate_datasets(parts).select(range(min(max_pairs, n_found)))
    of_all = f" of {n_pairs:,}" if n_pairs < sys.maxsize else ""
    logger.info(f"{len(sample):,} pairs drawn, for which {n_looked:,}{of_all} were looked at.")
    return sample
