"""Tables of text in files: every row knows its place."""

import csv
import gzip
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.compute
import pyarrow.parquet

from utils.core.errors import InputError


def paths_by_language(values: Sequence[str] | None, languages: Sequence[str], argument: str) -> dict[str, list[str]]:
    """Sort the values of an argument like `--parallel_file hi=a.tsv ru=b.hi,b.en` by language.

    With one language its name may be left out, and two bare values are two line-aligned files.

    Raises:
        InputError: for a language that was not asked for, or a value without language where there are several.
    """
    paths: dict[str, list[str]] = {}
    for value in values or []:
        language, equals, path = value.partition("=")
        if len(languages) == 1 and (not equals or os.path.exists(value)):  # a path may hold the sign itself
            paths.setdefault(languages[0], []).extend(value.split(","))
        elif equals and language in languages:
            paths.setdefault(language, []).extend(path.split(","))
        else:
            raise InputError(
                f"{argument} {value} belongs to none of the languages {' '.join(languages)}; "
                f"write it as {argument} {languages[0]}=PATH."
            )
    return paths


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 text file, gzipped or not, numbered from 1, without their line ends.

    Raises:
        InputError: for a line that is no UTF-8, a damaged archive or a file that cannot be opened.
    """
    number = 0
    try:
        with open_plain_or_gzipped(path) as file:
            for number, raw in enumerate(file, start=1):
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                yield number, line.rstrip("\r\n")
    except UnicodeDecodeError:
        raise InputError(f"Line {number} of {path} is not UTF-8; convert the file (iconv -t utf-8).") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"The archive {path} is damaged after line {number}; compress or copy it again.") from None
    except OSError as error:
        raise InputError(f"The file {path} cannot be read ({error.strerror}); check the path.") from None


def open_plain_or_gzipped(path: str | Path) -> BinaryIO:
    return gzip.open(path, "rb") if str(path).endswith(".gz") else open(path, "rb")


def read_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a table in a file by column name, each with its place as messages name it.

    Args:
        path: `.jsonl` (or `.json`: one object a line), `.csv` or `.tsv` with a header, or `.parquet`; each also `.gz`.

    Raises:
        InputError: naming the file, the line and the remedy.
    """
    suffix = Path(path.removesuffix(".gz")).suffix
    if suffix in (".jsonl", ".json"):
        return read_json_lines(path)
    if suffix in (".csv", ".tsv"):
        return _read_with_header(path, "," if suffix == ".csv" else "\t")
    if suffix == ".parquet":
        return read_parquet(path)
    raise InputError(f"The file {path} is of no known format; use .jsonl, .csv, .tsv or .parquet, each also .gz.")


def read_json_lines(path: str, like: str = '{"id": …}') -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file with one JSON object a line; blank lines are passed over.

    Args:
        path: the file.
        like: what a line should look like, for messages.
    """
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"Line {number} of {path} is no JSON ({error}); write one object a line.") from None
        if not isinstance(row, dict):
            raise InputError(f"Line {number} of {path} is no JSON object; write one like {like}.")
        yield f"Line {number} of {path}", row


def _read_with_header(path: str, delimiter: str) -> Iterator[tuple[str, dict[str, str]]]:
    lines = (line + "\n" for _, line in read_lines(path))
    rows = csv.reader(lines, delimiter=delimiter)
    header = None
    for row in no_csv_error(rows, path):
        if header is None:
            header = row
        elif row and len(row) != len(header):
            raise InputError(
                f"Line {rows.line_num} of {path} has {len(row)} columns, its header {len(header)}; every line needs as "
                "many as the header."
            )
        elif row:
            yield f"Line {rows.line_num} of {path}", dict(zip(header, row))


def no_csv_error(rows: Iterator[list[str]], path: str) -> Iterator[list[str]]:
    try:
        yield from rows
    except csv.Error as error:
        raise InputError(f"The file {path} is no proper CSV ({error}); is a quotation mark left open?") from None


def read_parquet(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a Parquet file."""
    try:
        with tempfile.TemporaryFile() as unpacked:
            if path.endswith(".gz"):  # Parquet is read from its end: an archive has to be unpacked as a whole
                with open_plain_or_gzipped(path) as file:
                    shutil.copyfileobj(file, unpacked)
            content = pyarrow.parquet.ParquetFile(unpacked if path.endswith(".gz") else path, buffer_size=2**20)
            rows = (row for batch in content.iter_batches(batch_size=1000) for row in batch.to_pylist())
            for number, row in enumerate(rows, start=1):
                yield f"Row {number} of {path}", row
    except (pyarrow.ArrowInvalid, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"The file {path} is no Parquet file ({error}); write it again.") from None
