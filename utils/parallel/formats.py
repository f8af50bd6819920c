"""Parallel text in files: sentence pairs of every format, split into words.

A bitext is a `datasets.Dataset` with the columns `source` and `english`, both lists of words, and, once linked,
`links`: lists of `[i, j]`, source word i with English word j.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value

from utils.core.cache import cache_key, dataset_from_files
from utils.core.errors import InputError
from utils.core.tables import READERS, Rows, read_csv, read_lines, read_rows


ENGLISH = "en"
# What run_align.py and the scripts with --continual call the arguments about a corpus.
PARALLEL = {
    "config": "--parallel_config",
    "split": "--parallel_split",
    "source": "--source_column",
    "english": "--english_column",
}
# Suffixes of files with lines `source ||| English`, as Moses and fast_align read them.
MOSES = (".moses", ".txt", ".fastalign")
BITEXT_FEATURES = Features({"source": List(Value("string")), "english": List(Value("string"))})
LINKS = List(List(Value("int32")))
Text = str | list[str]
Split = Callable[[str], list[str]]


@dataclass(frozen=True)
class SentenceColumns:
    """Which columns hold the source and the English sentences: those named, or else the first usual ones present."""

    language: str  # code of the source language
    source: str | None = None
    english: str | None = None

    def candidates(self) -> tuple[list[str], list[str]]:
        """The names that the source and the English column may have."""
        # Those of OPUS-100, WikiMatrix for sentence-transformers, and Tatoeba (XTREME, MTEB).
        source = [self.language, "non_english", "source_sentence", "sentence1", "source"]
        english = [ENGLISH, "english", "target_sentence", "sentence2", "target"]
        return [self.source] if self.source else source, [self.english] if self.english else english

    def are_in(self, present: Sequence[str]) -> bool:
        """Whether any of the columns is present or was named: whether a line is a header."""
        return bool(self.source or self.english) or any(set(names) & set(present) for names in self.candidates())

    def find(self, present: Sequence[str], where: str, arguments: Mapping[str, str] = PARALLEL) -> tuple[str, str]:
        """The names of both columns; `InputError`, which names one of the arguments, if the table `where` lacks one."""
        found = []
        for names, side, name in zip(self.candidates(), ("source", "english"), (self.language, "English")):
            if not (column := next((name for name in names if name in present), None)):
                raise InputError(
                    f"{where} has no column {names[0]} for the {name} sentences, only {', '.join(map(str, present))}; "
                    f"name the right one with {arguments[side]}."
                )
            found.append(column)
        return found[0], found[1]


def read_bitext(
    paths: Sequence[str],
    language: str,
    split: Split,
    splitting: str,
    source_column: str | None = None,
    english_column: str | None = None,
) -> Dataset:
    """Read all pairs of a parallel corpus, also empty ones, from one file, or from two line-aligned files.

    Args:
        paths: one file in a format of `READERS` or with lines `source ||| English` (`MOSES`); or two text files of any
            name, the English one second or with the suffix `.en`. Each may be gzipped.
        language: code of the source language.
        split: splits a sentence into words.
        splitting: a name for `split`, for the cache; see `words_of`.
        source_column, english_column: names of the columns, if they are not the usual ones.
    """
    if len(paths) > 2:
        raise InputError(
            f"{' '.join(paths)} are {len(paths)} files for {language}; give one, or two that are aligned."
        )
    columns = SentenceColumns(language, source_column, english_column)

    def rows() -> Iterator[dict[str, list[str]]]:
        for source, english in _read_two_files(*paths) if len(paths) == 2 else _read_table(paths[0], columns):
            yield {"source": words_of(source, split, splitting), "english": words_of(english, split, splitting)}

    key = cache_key(read_bitext, split, columns=columns, splitting=splitting)
    bitext = dataset_from_files(paths, rows, BITEXT_FEATURES, key)
    if not len(bitext):
        raise InputError(f"The file {paths[0]} is empty; give one with parallel sentences.")
    return bitext


def words_of(text: object, split: Split, splitting: str) -> list[str]:
    """The words of a sentence (none of None), or of a list of words, which is split further only into subwords."""
    if isinstance(text, list):
        return split(" ".join(text)) if splitting.startswith("subword") else text
    if text is not None and not isinstance(text, str):
        raise InputError(f"The data set has {text!r} where a sentence should be; name the columns of sentences.")
    return split(text or "")


def _read_table(path: str, columns: SentenceColumns) -> Iterator[tuple[Text, Text]]:
    readers: dict[str, Callable[[str], Rows]] = {
        **READERS,
        ".csv": partial(read_csv, keep_blank=True),
        ".tsv": partial(_read_tsv, columns=columns),
        **dict.fromkeys(MOSES, partial(_read_moses, columns=columns)),
    }
    names = None
    for where, stored in read_rows(path, readers):
        row = flat_row(stored)
        names = names or columns.find(list(row), path)
        yield _text(row, names[0], where), _text(row, names[1], where)


def _read_two_files(first: str, second: str) -> Iterator[tuple[str, str]]:
    endings = [Path(path.removesuffix(".gz")).suffix for path in (first, second)]
    source_path, english_path = (second, first) if endings[0] == f".{ENGLISH}" != endings[1] else (first, second)
    return ((source, english) for _, source, english in read_aligned_lines(source_path, english_path))


def read_aligned_lines(source_path: str, english_path: str) -> Iterator[tuple[int, str, str]]:
    """The number, from 1, and both lines of two text files; files of different length raise `InputError`."""
    for number, pair in enumerate(zip_longest(read_lines(source_path), read_lines(english_path)), 1):
        if None in pair:
            n_source, n_english = (sum(1 for _ in read_lines(path)) for path in (source_path, english_path))
            raise InputError(
                f"{source_path} has {n_source} lines and {english_path} has {n_english}; line i of one must translate "
                "line i of the other."
            )
        (_, source), (_, english) = pair
        yield number, source, english


def _read_moses(path: str, columns: SentenceColumns) -> Rows:
    names = [candidates[0] for candidates in columns.candidates()]
    for number, line in read_lines(path):
        parts = line.split(" ||| ") if line.strip() else ["", ""]
        if len(parts) != 2:
            raise InputError(
                f"Line {number} of {path} has {len(parts) - 1} separators ' ||| ' instead of one; write each pair as "
                f"'source ||| English', or give the file the suffix of its format ({', '.join(READERS)})."
            )
        yield f"Line {number} of {path}", dict(zip(names, parts))


def _read_tsv(path: str, columns: SentenceColumns) -> Rows:
    """The rows of a table with tabs: quotation marks are text, unbalanced ones too, and the header is optional."""
    header: list[str] = []
    names = [candidates[0] for candidates in columns.candidates()]  # without header: source first
    for number, line in read_lines(path):
        where, cells = f"Line {number} of {path}", line.split("\t")
        if number == 1 and columns.are_in(cells):
            header = names = cells
        elif not any(cells):
            yield where, dict.fromkeys(names, "")
        elif len(cells) != len(header) if header else len(cells) < 2:
            wanted = f"{len(header)} columns like the header" if header else "two columns, source and English"
            raise InputError(f"{where} has {len(cells)}; every line needs {wanted}, with a tab between them.")
        else:
            yield where, dict(zip(names, cells))


def _text(row: Mapping[str, Any], name: str, where: str) -> Text:
    text = row.get(name)
    if isinstance(text, str) or (isinstance(text, list) and all(isinstance(word, str) for word in text)):
        return text
    found = f"the value {row[name]!r}" if name in row else "nothing"
    raise InputError(f"{where} has {found} in column {name}; it needs a sentence, or a list of words.")


def flat_row(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """OPUS data sets keep both sides in one column `translation`."""
    return {**row, **row["translation"]} if isinstance(row.get("translation"), dict) else row
