"""Parallel corpora: reading them, splitting them into words, choosing the links and pairs that adjustment learns from.

A bitext is a `datasets.Dataset` with the columns `source` and `english`, both lists of words, and, once linked,
`links`: lists of `[i, j]`, source word i with English word j. It lies in Arrow files: however many pairs there are, only
those at work are in memory.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value

from utils.alignment.words import word_splitter
from utils.core.cache import code_of, dataset_from_files
from utils.core.errors import InputError
from utils.core.tables import no_csv_error, read_json_lines, read_lines, read_parquet


ENGLISH = "en"
# Column names of the parallel corpora people use: OPUS-100, WikiMatrix for sentence-transformers, Tatoeba (XTREME, MTEB).
SOURCE_COLUMNS = ("{language}", "non_english", "source_sentence", "sentence1", "source")
ENGLISH_COLUMNS = (ENGLISH, "english", "target_sentence", "sentence2", "target")
FORMATS = ".tsv, .csv, .jsonl, .parquet, Moses (source ||| English), each also .gz, or two line-aligned files"
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
        BITEXT_FEATURES,
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
    names = column_names(header, path, language, columns, required=delimiter == "," or any(columns))
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
        row = flat_row(row)
        names = names or column_names(list(row), path, language, columns)
        yield _texts(row, names, where)


def _texts(row: Mapping[str, Any], names: tuple[str, str], where: str) -> tuple[Text, Text]:
    for name in names:
        text = row.get(name)
        if not isinstance(text, str) and not (isinstance(text, list) and all(isinstance(word, str) for word in text)):
            found = f"the value {row[name]!r}" if name in row else "nothing"
            raise InputError(f"{where} has {found} in column {name}; it needs a sentence, or a list of words.")
    return row[names[0]], row[names[1]]


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
