"""Parallel corpora that are read as a stream, no further than they are needed."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from datasets import Dataset, IterableDataset, load_dataset_builder
from datasets.exceptions import DatasetsError

from utils.core.cache import cache_key, dataset_from_rows
from utils.core.data_sets import load_split
from utils.core.errors import InputError
from utils.parallel.arguments import ParallelDataArguments
from utils.parallel.data_sets import PARALLEL, usual_configs
from utils.parallel.formats import BITEXT_FEATURES, SentenceColumns, Split, flat_row, words_of


Pair = dict[str, list[str]]


class PairStream:
    """A bitext whose pairs are read in order, and no further than they are needed.

    Pairs that were read are kept in Arrow files, where a later run and the other processes of this one find them.
    `to_pair` returns None for a row that does not belong to the stream; `where` names the data set in messages;
    `fingerprint` changes with everything that the pairs depend on.
    """

    _SHUFFLE_BUFFER = 10_000  # rows among which the next one is drawn

    def __init__(
        self, rows: IterableDataset, to_pair: Callable[[Mapping], Pair | None], where: str, fingerprint: str
    ) -> None:
        self.rows = rows
        self.to_pair = to_pair
        self.where = where
        self.fingerprint = fingerprint
        self._rest: Iterator[Pair] = iter(())
        self._n_read: int | None = None

    def __iter__(self) -> Iterator[Pair]:
        return (pair for pair in map(self.to_pair, _read_stream(self.rows, self.where)) if pair is not None)

    def filter(self, keep: Callable[..., bool], **options: Any) -> "PairStream":
        """The pairs for which `keep(English words joined by spaces, **options)` is true."""

        def to_pair(row: Mapping) -> Pair | None:
            pair = self.to_pair(row)
            return pair if pair and keep(" ".join(pair["english"]), **options) else None

        return PairStream(self.rows, to_pair, self.where, cache_key(keep, stream=self.fingerprint, **options))

    def shuffle(self, seed: int) -> "PairStream":
        """The same pairs in random order: shards shuffled, and pairs within a buffer that moves along."""
        rows = self.rows.shuffle(seed=seed, buffer_size=self._SHUFFLE_BUFFER)
        key = cache_key(stream=self.fingerprint, seed=seed, buffer=self._SHUFFLE_BUFFER)
        return PairStream(rows, self.to_pair, self.where, key)

    def select(self, wanted: range) -> Dataset:
        """The pairs of a range as a bitext; fewer where the stream ends. Reading ranges in order reads it once."""
        key = cache_key(stream=self.fingerprint, start=wanted.start, stop=wanted.stop)
        return dataset_from_rows(self._read, BITEXT_FEATURES, key, wanted=wanted)

    def _read(self, wanted: range) -> Iterator[Pair]:
        if self._n_read is None or self._n_read > wanted.start:
            self._rest, self._n_read = iter(self), 0
        for pair in self._rest:
            self._n_read += 1
            if self._n_read > wanted.start:
                yield pair
            if self._n_read == wanted.stop:
                return


def stream_bitext(
    data: ParallelDataArguments,
    language: str,
    split: Split,
    splitting: str = "space",
    dataset_split: str = "train",
    **hub_options: Any,
) -> PairStream:
    """Open what `load_bitext` loads, but download nothing yet."""
    name = str(data.parallel_dataset)
    rows, config, part = load_split(
        name, language, usual_configs(data), [dataset_split], PARALLEL, streaming=True, **hub_options
    )
    where = f"The data set {name} ({config})"
    first = next(_read_stream(rows, where), None)
    if first is None:
        raise InputError(f"{where} has nothing in its split {part}; choose one with {PARALLEL['split']}.")
    names = SentenceColumns(language, data.source_column, data.english_column).find(list(flat_row(first)), where)

    def to_pair(row: Mapping[str, Any]) -> Pair:
        row = flat_row(row)
        return {side: words_of(row[column], split, splitting) for side, column in zip(("source", "english"), names)}

    builder = load_dataset_builder(name, config, **hub_options)
    files = [name, config, part, builder.config_id, builder.hash]
    key = cache_key(stream_bitext, split, files=files, names=names, splitting=splitting)
    return PairStream(rows, to_pair, where, key)


def _read_stream(rows: IterableDataset, where: str) -> Iterator[Mapping[str, Any]]:
    try:
        yield from rows
    except (DatasetsError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{where} cannot be read any further ({reason}); check it and the network.") from None
