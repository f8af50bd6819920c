"""Parallel corpora that are read as a stream, no further than they are needed."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from datasets import Dataset, IterableDataset
from datasets.exceptions import DatasetsError

from utils.core.cache import cache_key, dataset_from_rows
from utils.core.data_sets import load_split, stream_fingerprint
from utils.core.errors import InputError
from utils.parallel.data_sets import PARALLEL, usual_configs
from utils.parallel.formats import BITEXT_FEATURES, SentenceColumns, flat_row, words_of


class PairStream:
    """A bitext that stays where it is: its pairs are read in order, and no further than they are needed.

    What was read is kept in Arrow files, in which a later run and the other processes of this one find it. Every step
    but the last returns a new stream.

    Args:
        rows: of the data set.
        to_pair: makes a pair of words of a row; None of one that does not belong to the stream.
        where: the data set, as messages name it.
        fingerprint: of whatever the pairs depend on.
    """

    _SHUFFLE_BUFFER = 10_000  # rows among which the next one is drawn

    def __init__(
        self,
        rows: IterableDataset,
        to_pair: Callable[[Mapping], dict[str, list[str]] | None],
        where: str,
        fingerprint: str,
    ) -> None:
        self.rows = rows
        self.to_pair = to_pair
        self.where = where
        self.fingerprint = fingerprint
        self._rest: Iterator[dict[str, list[str]]] = iter(())
        self._n_read: int | None = None

    def __iter__(self) -> Iterator[dict[str, list[str]]]:
        return (pair for pair in map(self.to_pair, _read_stream(self.rows, self.where)) if pair is not None)

    def filter(self, keep: Callable[..., bool], **options: Any) -> "PairStream":  # noqa: ANN401
        """The pairs for which `keep(English words joined by spaces, **options)` is true."""

        def to_pair(row: Mapping) -> dict[str, list[str]] | None:
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

    def _read(self, wanted: range) -> Iterator[dict[str, list[str]]]:
        if self._n_read is None or self._n_read > wanted.start:
            self._rest, self._n_read = iter(self), 0
        for pair in self._rest:
            self._n_read += 1
            if self._n_read > wanted.start:
                yield pair
            if self._n_read == wanted.stop:
                return


def stream_bitext(
    dataset_name: str,
    language: str,
    split: Callable[[str], list[str]],
    splitting: str = "space",
    config_name: str | None = None,
    dataset_split: str = "train",
    source_column: str | None = None,
    english_column: str | None = None,
    **hub_options: Any,  # noqa: ANN401
) -> PairStream:
    """Open what `load_bitext` loads, but download nothing yet.

    Args:
        splitting: a name for `split`, by which what was read is found again.

    Raises:
        InputError: naming what the data set offers instead.
    """
    configs = usual_configs(config_name)
    rows, config, part = load_split(
        dataset_name, language, configs, [dataset_split], PARALLEL, streaming=True, **hub_options
    )
    where = f"The data set {dataset_name} ({config})"
    first = next(_read_stream(rows, where), None)
    if first is None:
        raise InputError(f"{where} has nothing in its split {part}; choose one with {PARALLEL['split']}.")
    names = SentenceColumns(language, source_column, english_column).find(list(flat_row(first)), where)

    def to_pair(row: Mapping[str, Any]) -> dict[str, list[str]]:
        row = flat_row(row)
        subwords = splitting.startswith("subword")
        return {side: words_of(row[name], split, subwords) for side, name in zip(("source", "english"), names)}

    files = stream_fingerprint(dataset_name, config, part, **hub_options)
    key = cache_key(stream_bitext, split, files=files, names=names, splitting=splitting)
    return PairStream(rows, to_pair, where, key)


def _read_stream(rows: IterableDataset, where: str) -> Iterator[Mapping[str, Any]]:
    try:
        yield from rows
    except (DatasetsError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{where} cannot be read any further ({reason}); check it and the network.") from None
