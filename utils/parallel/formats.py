"""Parallel corpora: reading them, splitting them into words, choosing the links and pairs that adjustment learns from.

A bitext is a `datasets.Dataset` with the columns `source` and `english`, both lists of words, and, once linked,
`links`: lists of `[i, j]`, source word i with English word j. It lies in Arrow files: however many pairs there are, only
those at work are in memory.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value

from utils.alignment.words import word_splitter
from utils.core.cache import cache_key, dataset_from_files
from utils.core.errors import InputError
from utils.core.tables import READERS, Rows, read_csv, read_lines, read_rows


ENGLISH = "en"
# Column names of the parallel corpora people use: OPUS-100, WikiMatrix for sentence-transformers, Tatoeba (XTREME, MTEB).
SOURCE_COLUMNS = ("{language}", "non_english", "source_sentence", "sentence1", "source")
ENGLISH_COLUMNS = (ENGLISH, "english", "target_sentence", "sentence2", "target")
# Suffixes of files with lines `source ||| English`, as Moses and fast_align read them.
MOSES = (".moses", ".txt", ".fastalign")
BITEXT_FEATURES = Features({"source": List(Value("string")), "english": List(Value("string"))})
LINKS = List(List(Value("int32")))
Text = str | list[str]


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
        paths: see `read_pairs`.
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
        BITEXT_FEATURES,
        cache_key(_split_rows, word_splitter, language=language, columns=columns, splitting=splitting),
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
    for _, source, english in read_pairs(paths, language, columns):
        empty = False
        yield {
            "source": words_of(source, split, splits_words),
            "english": words_of(english, split, splits_words),
        }
    if empty:
        raise InputError(f"The file {paths[0]} is empty; give one with parallel sentences.")


def words_of(text: Text, split: Callable[[str], list[str]], splits_words: bool) -> list[str]:
    """The words of a sentence; a list of words is one already, unless words are subwords."""
    if isinstance(text, str):
        return split(text)
    return split(" ".join(text)) if splits_words else text


def read_pairs(
    paths: Sequence[str], language: str, columns: tuple[str | None, str | None]
) -> Iterator[tuple[str, Text, Text]]:
    """The place, the source sentence and the English sentence of every pair in one file, or in two line-aligned files.

    Args:
        paths: one file in a format of `READERS` or with lines `source ||| English` (`MOSES`), or two files of any name.
        language: code of the source language, the name of its column by default.
        columns: names of the source and the English column, None for the usual ones.

    Raises:
        InputError: naming the file, the line and the remedy.
    """
    if len(paths) == 2:
        yield from _read_two_files(*paths)
        return
    bare = (columns[0] or language, columns[1] or ENGLISH)  # names for columns that have none in the file
    readers = {
        **READERS,
        ".csv": partial(read_csv, keep_blank=True),
        ".tsv": partial(_read_tsv, language=language, columns=columns, bare=bare),
        **dict.fromkeys(MOSES, partial(_read_moses, bare=bare)),
    }
    names = None
    for where, row in read_rows(paths[0], readers):
        row = flat_row(row)
        names = names or column_names(list(row), paths[0], language, columns)
        yield where, _text(row, names[0], where), _text(row, names[1], where)


def _read_two_files(first: str, second: str) -> Iterator[tuple[str, str, str]]:
    endings = [Path(path.removesuffix(".gz")).suffix for path in (first, second)]
    source_path, english_path = (second, first) if endings[0] == f".{ENGLISH}" != endings[1] else (first, second)
    source, english = read_lines(source_path), read_lines(english_path)
    n_pairs = 0
    for (number, source_line), (_, english_line) in zip(source, english):
        n_pairs += 1
        yield f"Line {number} of {source_path} and {english_path}", source_line, english_line
    # zip has taken one line more from the first file if the second one ended before it.
    rest_english = sum(1 for _ in english)
    n_source = sum(1 for _ in read_lines(source_path))
    if n_source != n_pairs + rest_english:
        raise InputError(
            f"{source_path} has {n_source} lines and {english_path} has {n_pairs + rest_english}; line i of one must "
            "translate line i of the other."
        )


def _read_moses(path: str, bare: tuple[str, str]) -> Rows:
    for number, line in read_lines(path):
        parts = line.split(" ||| ") if line.strip() else ["", ""]
        if len(parts) != 2:
            raise InputError(
                f"Line {number} of {path} has {len(parts) - 1} separators ' ||| ' instead of one; write each pair as "
                f"'source ||| English', or give the file the suffix of its format ({', '.join(READERS)})."
            )
        yield f"Line {number} of {path}", dict(zip(bare, parts))


def _read_tsv(path: str, language: str, columns: tuple[str | None, str | None], bare: tuple[str, str]) -> Rows:
    """The rows of a table with tabs: quotation marks are text, unbalanced ones too, and the header is optional."""
    header: list[str] = []
    for number, line in read_lines(path):
        cells = line.split("\t")
        if number == 1 and column_names(cells, path, language, columns, required=any(columns)):
            header = cells
        elif not any(cells):
            yield f"Line {number} of {path}", dict.fromkeys(header or bare, "")
        elif len(cells) != len(header) if header else len(cells) < 2:
            wanted = f"{len(header)} columns like the header" if header else "two columns, source and English"
            raise InputError(
                f"Line {number} of {path} has {len(cells)}; every line needs {wanted}, with a tab between them."
            )
        else:
            yield f"Line {number} of {path}", dict(zip(header or bare, cells))


def _text(row: Mapping[str, Any], name: str, where: str) -> Text:
    text = row.get(name)
    if isinstance(text, str) or (isinstance(text, list) and all(isinstance(word, str) for word in text)):
        return text
    found = f"the value {row[name]!r}" if name in row else "nothing"
    raise InputError(f"{where} has {found} in column {name}; it needs a sentence, or a list of words.")


def flat_row(row: dict[str, Any]) -> dict[str, Any]:
    """OPUS data sets keep both sides in one column `translation`."""
    return {**row, **row["translation"]} if isinstance(row.get("translation"), dict) else row


def column_names(
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
