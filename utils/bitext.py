"""Parallel corpora: reading them, splitting them into words, choosing the links and pairs that adjustment learns from.

A bitext is a `datasets.Dataset` with the columns `source` and `english`, both lists of words, and, once linked,
`links`: lists of `[i, j]`, source word i with English word j. It lies in Arrow files: however many pairs there are, only
those at work are in memory.
"""

import csv
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
from datasets import Dataset, Features, IterableDataset, List, Value, concatenate_datasets
from datasets.exceptions import DatasetsError
from datasets.fingerprint import Hasher

from utils.errors import InputError
from utils.tables import (
    code_of,
    dataset_from_files,
    dataset_from_rows,
    first_offered,
    load_split,
    no_csv_error,
    read_json_lines,
    read_lines,
    read_parquet,
    stream_fingerprint,
)
from utils.word_pooling import word_splitter


logger = logging.getLogger("utils.bitext")

ENGLISH = "en"
# Column names of the parallel corpora people use: OPUS-100, WikiMatrix for sentence-transformers, Tatoeba (XTREME, MTEB).
SOURCE_COLUMNS = ("{language}", "non_english", "source_sentence", "sentence1", "source")
ENGLISH_COLUMNS = (ENGLISH, "english", "target_sentence", "sentence2", "target")
# What run_align.py and the scripts with --continual call the arguments about a data set.
PARALLEL = {
    "config": "--parallel_config",
    "split": "--parallel_split",
    "source": "--source_column",
    "english": "--english_column",
}
FORMATS = ".tsv, .csv, .jsonl, .parquet, Moses (source ||| English), each also .gz, or two line-aligned files"

_FEATURES = Features({"source": List(Value("string")), "english": List(Value("string"))})
LINKS = List(List(Value("int32")))
Text = str | list[str]


# --- Reading -----------------------------------------------------------------------------------------------------


def read_bitext(
    paths: Sequence[str],
    language: str,
    split: Callable[[str], list[str]],
    splitting: str,
    source_column: str | None = None,
    english_column: str | None = None,
) -> Dataset:
    """Read a parallel corpus from one file, or from two files that are aligned line by line.

    Args:
        paths: a `.tsv`, `.csv`, `.jsonl`, `.parquet` or Moses file; or the source file and the English file (in
            whichever order if one ends in `.en`). Each may be gzipped.
        language: code of the source language, which is also the name of its column by default.
        split: splits a sentence into words; sentences that are lists of words already are left alone.
        splitting: a name for `split`, by which an earlier reading of the same file is found again.
        source_column, english_column: names of the columns, where they are not the usual ones.

    Returns:
        Columns `source` and `english`, one row for every pair of the file in its order, empty ones included.

    Raises:
        InputError: naming the file, the line and the remedy.
    """
    if len(paths) > 2:
        raise InputError(
            f"{' '.join(paths)} are {len(paths)} files for {language}; give one, or two that are aligned."
        )
    columns = (source_column, english_column)
    return dataset_from_files(
        paths,
        _split_rows,
        _FEATURES,
        made_with=[language, columns, splitting, code_of(_split_rows, word_splitter)],
        paths=tuple(paths),
        language=language,
        columns=columns,
        split=split,
        splitting=splitting,
    )


def _split_rows(
    paths: tuple[str, ...],
    language: str,
    columns: tuple[str | None, str | None],
    split: Callable[[str], list[str]],
    splitting: str,
) -> Iterator[dict[str, list[str]]]:
    empty, splits_words = True, splitting.startswith("subword")
    for source, english in _read_rows(paths, language, columns):
        empty = False
        yield {
            "source": _words(source, split, splits_words),
            "english": _words(english, split, splits_words),
        }
    if empty:
        raise InputError(f"The file {paths[0]} is empty; give one with parallel sentences.")


def _words(text: Text, split: Callable[[str], list[str]], splits_words: bool) -> list[str]:
    """The words of a sentence; a list of words is one already, unless words are subwords."""
    if isinstance(text, str):
        return split(text)
    return split(" ".join(text)) if splits_words else text


def _read_rows(paths: list[str], language: str, columns: tuple[str | None, str | None]) -> Iterator[tuple[Text, Text]]:
    if len(paths) == 2:
        return _read_two_files(*paths)
    suffix = Path(paths[0].removesuffix(".gz")).suffix
    if suffix in (".tsv", ".csv"):
        return _read_table(paths[0], "\t" if suffix == ".tsv" else ",", language, columns)
    if suffix in (".jsonl", ".json"):
        like = f'{{"{language}": …, "{ENGLISH}": …}}'
        return _read_named_columns(read_json_lines(paths[0], like), paths[0], language, columns)
    if suffix == ".parquet":
        return _read_named_columns(read_parquet(paths[0]), paths[0], language, columns)
    return _read_moses(paths[0])


def _read_two_files(first: str, second: str) -> Iterator[tuple[str, str]]:
    endings = [Path(path.removesuffix(".gz")).suffix for path in (first, second)]
    source_path, english_path = (second, first) if endings[0] == f".{ENGLISH}" != endings[1] else (first, second)
    source, english = read_lines(source_path), read_lines(english_path)
    n_pairs = 0
    for (_, source_line), (_, english_line) in zip(source, english):
        n_pairs += 1
        yield source_line, english_line
    # zip has taken one line more from the first file if the second one ended before it.
    rest_english = sum(1 for _ in english)
    n_source = sum(1 for _ in read_lines(source_path))
    if n_source != n_pairs + rest_english:
        raise InputError(
            f"{source_path} has {n_source} lines and {english_path} has {n_pairs + rest_english}; line i of one must "
            "translate line i of the other."
        )


def _read_moses(path: str) -> Iterator[tuple[str, str]]:
    for number, line in read_lines(path):
        parts = line.split(" ||| ") if line.strip() else ["", ""]
        if len(parts) != 2:
            raise InputError(
                f"Line {number} of {path} has {len(parts) - 1} separators ' ||| ' instead of one; write each pair as "
                f"'source ||| English', or give the file an ending that tells its format ({FORMATS})."
            )
        yield parts[0], parts[1]


def _read_table(
    path: str, delimiter: str, language: str, columns: tuple[str | None, str | None]
) -> Iterator[tuple[str, str]]:
    lines = (line for _, line in read_lines(path))
    if delimiter == ",":
        rows = csv.reader(line + "\n" for line in lines)
    else:  # corpora in .tsv have quotation marks as they come, unbalanced ones too
        rows = (line.split("\t") for line in lines)
    header = next(rows, None)
    if header is None:
        return
    names = _column_names(header, path, language, columns, required=delimiter == "," or any(columns))
    if names:
        positions = header.index(names[0]), header.index(names[1])
        n_columns = len(header)
    else:  # no header: the first two columns, source first
        positions, n_columns = (0, 1), None
        rows = (row for part in ([header], rows) for row in part)
    for number, row in enumerate(no_csv_error(rows, path), start=2 if names else 1):
        line = number if delimiter == "\t" else rows.line_num
        if not any(row):
            yield "", ""
        elif len(row) != n_columns if n_columns else len(row) < 2:
            wanted = f"{n_columns} columns like the header" if n_columns else "two columns, source and English"
            separator = "a tab" if delimiter == "\t" else "a comma"
            raise InputError(
                f"Line {line} of {path} has {len(row)}; every line needs {wanted}, with {separator} between."
            )
        else:
            yield row[positions[0]], row[positions[1]]


def _read_named_columns(
    rows: Iterable[tuple[str, dict[str, Any]]], path: str, language: str, columns: tuple[str | None, str | None]
) -> Iterator[tuple[Text, Text]]:
    names = None
    for where, row in rows:
        row = _flat(row)
        names = names or _column_names(list(row), path, language, columns)
        yield _texts(row, names, where)


def _texts(row: Mapping[str, Any], names: tuple[str, str], where: str) -> tuple[Text, Text]:
    for name in names:
        text = row.get(name)
        if not isinstance(text, str) and not (isinstance(text, list) and all(isinstance(word, str) for word in text)):
            found = f"the value {row[name]!r}" if name in row else "nothing"
            raise InputError(f"{where} has {found} in column {name}; it needs a sentence, or a list of words.")
    return row[names[0]], row[names[1]]


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """OPUS data sets keep both sides in one column `translation`."""
    return {**row, **row["translation"]} if isinstance(row.get("translation"), dict) else row


def _column_names(
    present: Sequence[str],
    where: str,
    language: str,
    columns: tuple[str | None, str | None],
    required: bool = True,
) -> tuple[str, str] | None:
    """The columns that hold the source and the English sentence; None if it looks like a table without header."""
    usual = [[name.format(language=language) for name in names] for names in (SOURCE_COLUMNS, ENGLISH_COLUMNS)]
    wanted = [[name] if name else names for name, names in zip(columns, usual)]
    found = [next((name for name in names if name in present), None) for names in wanted]
    if all(found):
        return found[0], found[1]
    if not required and not any(found):
        return None
    side, argument = ("English", "--english_column") if found[0] else (language, "--source_column")
    missing = wanted[1 if found[0] else 0][0]
    raise InputError(
        f"{where} has no column {missing} for the {side} sentences, only {', '.join(map(str, present))}; "
        f"name the right one with {argument}."
    )


def load_bitext(
    dataset_name: str,
    language: str,
    split: Callable[[str], list[str]],
    splitting: str = "space",
    config_name: str | None = None,
    dataset_split: str = "train",
    source_column: str | None = None,
    english_column: str | None = None,
    num_proc: int | None = None,
    **hub_options: Any,  # noqa: ANN401
) -> Dataset:
    """Read a parallel corpus from a data set on the Hub or in a local folder.

    Args:
        dataset_name: Hub id or folder.
        language: code of the source language.
        split: splits a sentence into words.
        splitting: its name; lists of words are split once more for `subword`.
        config_name: configuration, in which `{language}` stands for the language; by default the first of
            `en-hi`, `hi-en`, `hi` that the data set has.
        dataset_split: which split.
        source_column, english_column: names of the columns, where they are not the usual ones.
        num_proc: processes that split the sentences.
        hub_options: `cache_dir`, `token`.

    Raises:
        InputError: naming what the data set offers instead.
    """
    configs, columns = _configs(config_name), (source_column, english_column)
    rows, _, _ = load_sentences(dataset_name, language, configs, [dataset_split], columns, PARALLEL, **hub_options)
    return rows.map(
        _split_columns,
        batched=True,
        features=_FEATURES,
        num_proc=num_proc,
        fn_kwargs={"split": split, "splits_words": splitting.startswith("subword")},
        desc="Splitting into words",
    )


def _configs(config_name: str | None) -> list[str]:
    return [config_name] if config_name else [f"{ENGLISH}-{{language}}", f"{{language}}-{ENGLISH}", "{language}"]


def load_sentences(
    dataset_name: str,
    language: str,
    configs: Sequence[str],
    splits: Sequence[str],
    columns: tuple[str | None, str | None],
    arguments: Mapping[str, str],
    **hub_options: Any,  # noqa: ANN401
) -> tuple[Dataset, str, str]:
    """Find the sentence pairs of a language in a data set on the Hub or in a local folder.

    Args:
        dataset_name: Hub id or folder.
        language: code of the source language.
        configs: configurations, of which the first that there is gets read; `{language}` stands for the language. A
            data set without configurations has one of its own.
        splits: likewise; a data set with a single split needs no name for it, unless one is asked for.
        columns: of source and English sentences; None for the usual names.
        arguments: what the command line calls `config`, `split`, `source` and `english`, for messages.
        hub_options: `cache_dir`, `token`.

    Returns:
        Rows with the columns `source` and `english`, the configuration and the split.

    Raises:
        InputError: naming what the data set offers instead.
    """
    rows, config, split = load_split(dataset_name, language, configs, splits, arguments, **hub_options)
    where = f"The data set {dataset_name} ({config})"
    rows = rows.flatten()  # OPUS data sets keep both sides in one column `translation`
    names = {}
    for side, name, usual in zip(("source", "english"), columns, (SOURCE_COLUMNS, ENGLISH_COLUMNS)):
        wanted = [name] if name else [*usual, *(f"translation.{column}" for column in usual)]
        found = first_offered(wanted, rows.column_names, language, f"{where} has no column", arguments[side])
        names[found] = side
    return rows.select_columns(list(names)).rename_columns(names), config, split


def _split_columns(
    batch: Mapping[str, list], split: Callable[[str], list[str]], splits_words: bool
) -> dict[str, list[list[str]]]:
    for side in ("source", "english"):
        for text in batch[side]:
            if text is not None and not isinstance(text, (str, list)):
                raise InputError(
                    f"The data set has {text!r} where a sentence should be; name the columns of sentences."
                )
    return {side: [_words(text or "", split, splits_words) for text in batch[side]] for side in ("source", "english")}


# --- Streams -----------------------------------------------------------------------------------------------------


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

    def filter(
        self,
        function: Callable[..., bool],
        input_columns: Sequence[str],
        fn_kwargs: Mapping[str, Any],
        **_: Any,  # noqa: ANN401
    ) -> "PairStream":
        """The pairs for which a function of some columns is true. (`Dataset.filter` has more options.)"""

        def to_pair(row: Mapping) -> dict[str, list[str]] | None:
            pair = self.to_pair(row)
            return pair if pair and function(*(pair[name] for name in input_columns), **fn_kwargs) else None

        fingerprint = Hasher.hash([self.fingerprint, function, input_columns, fn_kwargs])
        return PairStream(self.rows, to_pair, self.where, fingerprint)

    def shuffle(self, seed: int) -> "PairStream":
        """The same pairs in random order: shards shuffled, and pairs within a buffer that moves along."""
        rows = self.rows.shuffle(seed=seed, buffer_size=self._SHUFFLE_BUFFER)
        fingerprint = Hasher.hash([self.fingerprint, seed, self._SHUFFLE_BUFFER])
        return PairStream(rows, self.to_pair, self.where, fingerprint)

    def select(self, wanted: range) -> Dataset:
        """The pairs of a range as a bitext; fewer where the stream ends. Reading ranges in order reads it once."""
        fingerprint = Hasher.hash([self.fingerprint, wanted.start, wanted.stop])
        try:
            return dataset_from_rows(self._read, _FEATURES, fingerprint, wanted=wanted)
        except ValueError as error:
            if "corresponds to no data" not in str(error):  # (which is what `datasets` says if there are no rows)
                raise
            return Dataset.from_dict({"source": [], "english": []}, _FEATURES)

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
    configs, columns = _configs(config_name), (source_column, english_column)
    rows, config, part = load_split(
        dataset_name, language, configs, [dataset_split], PARALLEL, streaming=True, **hub_options
    )
    where = f"The data set {dataset_name} ({config})"
    first = next(_read_stream(rows, where), None)
    if first is None:
        raise InputError(f"{where} has nothing in its split {part}; choose one with {PARALLEL['split']}.")
    names = _column_names(list(_flat(first)), where, language, columns)

    def to_pair(row: Mapping[str, Any]) -> dict[str, list[str]]:
        row = _flat(row)
        sentences = {side: [row[name]] for side, name in zip(("source", "english"), names)}
        words = _split_columns(sentences, split, splitting.startswith("subword"))
        return {side: sentences[0] for side, sentences in words.items()}

    made_by = [stream_fingerprint(dataset_name, config, part, **hub_options), names, splitting]
    return PairStream(rows, to_pair, where, Hasher.hash(made_by))


def _read_stream(rows: IterableDataset, where: str) -> Iterator[Mapping[str, Any]]:
    try:
        yield from rows
    except (DatasetsError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{where} cannot be read any further ({reason}); check it and the network.") from None


# --- Choosing ----------------------------------------------------------------------------------------------------


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
