"""Parallel corpora from data sets on the Hub or in a local folder: read as a whole, or as a stream."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, islice
from typing import Any, TypeAlias

import numpy as np
from datasets import Dataset, IterableDataset, load_dataset_builder

from utils.core.cache import cache_key, dataset_from_rows
from utils.core.columns import column_array, same_content
from utils.core.data_sets import load_split
from utils.core.errors import InputError, first_line
from utils.parallel.arguments import ParallelDataArguments
from utils.parallel.formats import BITEXT_FEATURES, Split, flat_row, split_pair
from utils.parallel.sides import EACH, ENGLISH, PARALLEL, SAMPLE, SentenceColumns


logger = logging.getLogger(__name__)

Pair = dict[str, Any]  # a row of a bitext
# From this share of the held-out pairs on (0 to 1), a warning says that they are among those of the training.
_MANY_SHARED = 0.01


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
        return (pair for pair in map(self.to_pair, _read(self.rows, self.where)) if pair is not None)

    def filter(self, keep: Callable[..., bool], **options: Any) -> "PairStream":
        """The pairs for which `keep(pair, **options)` is true."""

        def to_pair(row: Mapping) -> Pair | None:
            pair = self.to_pair(row)
            return pair if pair and keep(pair, **options) else None

        return PairStream(self.rows, to_pair, self.where, cache_key(keep, stream=self.fingerprint, **options))

    def map(self, change: Callable[..., Pair], **options: Any) -> "PairStream":
        """The pairs that `change(pair, **options)` makes of these."""

        def to_pair(row: Mapping) -> Pair | None:
            pair = self.to_pair(row)
            return pair and change(pair, **options)

        return PairStream(self.rows, to_pair, self.where, cache_key(change, stream=self.fingerprint, **options))

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


Bitext: TypeAlias = Dataset | PairStream  # a stream with --streaming


def check_not_shared(pairs: Mapping[str, Bitext]) -> None:
    """Raise `InputError` if two languages have the same sentence pairs, as from a data set without a column for each."""
    for one, other in combinations(pairs, 2):
        if _same_pairs(pairs[one], pairs[other]):
            raise InputError(
                f"{one} and {other} have the same sentence pairs; give each language a column, a configuration or a file of its own, or "
                "omit one."
            )


def check_held_out(held_out: Mapping[str, Bitext], pairs: Mapping[str, Bitext], argument: str) -> None:
    """Raise `InputError` if the held-out pairs of a language are those to train on; warn if some of them are.

    Pairs are known by the checksum of their English sentence, since links of their own may split them into other words. (Of a
    stream the beginning counts.)
    """
    for language in held_out:
        if _same_pairs(held_out[language], pairs[language], ["checksum"]):
            raise InputError(
                f"The held-out pairs of {language} ({argument}) are those of the training; give others, or hold out a part "
                f"of them by --{'tracking' if 'tracking' in argument else 'validation'}_split_percentage."
            )
        held, trained = (column_array(_beginning(some[language]), "checksum") for some in (held_out, pairs))
        n_shared = int(np.isin(held, trained).sum())
        if n_shared >= _MANY_SHARED * len(held):
            logger.warning(
                f"{n_shared:,} of the {len(held):,} held-out pairs of {language} ({argument}) have the English sentence of "
                "a training pair, so that what is measured on them is too good; leave them out."
            )


def _beginning(bitext: Bitext) -> Dataset:
    """All pairs; of a stream the first ones, which are kept, so that nothing is read again."""
    return bitext if isinstance(bitext, Dataset) else bitext.select(range(SAMPLE))


def _same_pairs(one: Bitext, other: Bitext, columns: Sequence[str] = tuple(BITEXT_FEATURES)) -> bool:
    """Whether two bitexts are the same. (Of a stream its beginning counts, which is kept, so that nothing is read again.)"""
    if isinstance(one, PairStream) or isinstance(other, PairStream):
        one, other = (
            some.select(range(min(SAMPLE, len(some)) if isinstance(some, Dataset) else SAMPLE))
            for some in (one, other)
        )
    return same_content(one.select_columns(list(columns)), other.select_columns(list(columns)))


def load_bitext(
    data: ParallelDataArguments,
    language: str,
    split: Split,
    splitting: str = "space",
    dataset_split: str = "train",
    anchor: str | None = None,
    **hub_options: Any,
) -> Dataset | PairStream:
    """The pairs of a language in `--parallel_dataset`, as a `PairStream` with `--streaming`.

    `split` splits a sentence into words, and `splitting` is its name (see `words_of`); `hub_options` are `cache_dir`
    and `token`; `anchor` is the language of the other side, by default `--anchor_language`. `InputError` names what the data
    set offers instead.
    """
    anchor = anchor or data.anchor_language
    columns = sentence_columns(data, language, anchor)
    # (A configuration that is called after one language has the pairs with English.)
    usual = [f"{anchor}-{{language}}", f"{{language}}-{anchor}", *["{language}"] * (anchor == ENGLISH)]
    usual = ["default", "all"] if data.anchor_language == EACH else usual
    name, configs = str(data.parallel_dataset), [data.parallel_config] if data.parallel_config else usual
    rows, names, config, part = load_sentences(
        name, configs, [dataset_split], columns, PARALLEL, data.streaming, **hub_options
    )
    if isinstance(rows, Dataset):
        return rows.map(
            _split_columns,
            batched=True,
            features=BITEXT_FEATURES,
            num_proc=data.preprocessing_num_workers,
            fn_kwargs={"split": split, "splitting": splitting, "code": cache_key(_split_columns, split_pair, split)},
            desc="Splitting into words",
        )

    def to_pair(row: Mapping[str, Any]) -> Pair:
        row = flat_row(row)
        return split_pair(row[names[0]], row[names[1]], split, splitting)

    builder = load_dataset_builder(name, config, **hub_options)
    files = [name, config, part, builder.config_id, builder.hash]
    key = cache_key(load_bitext, split, files=files, names=names, splitting=splitting)
    return PairStream(rows, to_pair, f"The data set {name} ({config})", key)


def sentence_columns(data: ParallelDataArguments, language: str, anchor: str) -> SentenceColumns:
    """The columns of a language and its anchor: with `--anchor_language each` those with exactly these names."""
    named = (language, anchor) if data.anchor_language == EACH else (data.source_column, data.english_column)
    return SentenceColumns(language, *named, anchor)


def load_sentences(
    dataset_name: str,
    configs: Sequence[str],
    splits: Sequence[str],
    columns: SentenceColumns,
    arguments: Mapping[str, str],
    streaming: bool = False,
    **hub_options: Any,
) -> tuple[Dataset | IterableDataset, tuple[str, str], str, str]:
    """The sentence pairs of a language in a data set (Hub id or folder), their columns, the configuration and the split.

    A `Dataset` has the columns `source` and `english`; a stream has all columns, under their own names. `arguments` are
    what the command line calls `config`, `split`, `source` and `english`. See `load_split`.
    """
    rows, config, split = load_split(
        dataset_name, columns.language, configs, splits, arguments, streaming, **hub_options
    )
    where = f"The data set {dataset_name} ({config})"
    first = [flat_row(row) for row in islice(_read(rows, where), SAMPLE)]
    if not first:
        raise InputError(f"{where} has nothing in its split {split}; choose one with {arguments['split']}.")
    names = columns.find(first, where, arguments)
    if isinstance(rows, Dataset):
        rows = rows.flatten()  # OPUS data sets keep both sides in one column `translation`
        stored = {name.removeprefix("translation."): name for name in rows.column_names}
        rows = rows.select_columns([stored[name] for name in names])
        rows = rows.rename_columns(dict(zip(rows.column_names, ("source", "english"))))
    return rows, names, config, split


def _split_columns(batch: Mapping[str, list], split: Split, splitting: str, code: str) -> dict[str, list]:
    """Rows are cached under `code`."""
    pairs = [split_pair(*pair, split, splitting) for pair in zip(batch["source"], batch["english"])]
    return {column: [pair[column] for pair in pairs] for column in BITEXT_FEATURES}


def _read(rows: Dataset | IterableDataset, where: str) -> Iterator[Mapping[str, Any]]:
    try:
        yield from rows
    except InputError:
        raise
    except Exception as error:  # files of other people can be wrong in every way
        raise InputError(
            f"{where} cannot be read any further ({first_line(error)[:150]}); check it and the network."
        ) from None
