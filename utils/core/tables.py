"""Tables of text in files: rows by column name, each with its place in the file for messages."""

import csv
import gzip
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow
import pyarrow.parquet

from utils.core.errors import InputError


Rows = Iterator[tuple[str, dict[str, Any]]]


def paths_by_language(values: Sequence[str] | None, languages: Sequence[str], argument: str) -> dict[str, list[str]]:
    """Sort the values of an argument like `--parallel_file hi=a.tsv ru=b.hi,b.en` by language.

    With one language its code is optional. Raises `InputError` for an unknown or missing language.
    """
    paths: dict[str, list[str]] = {}
    for value in values or []:
        language, equals, path = value.partition("=")
        if len(languages) == 1 and (not equals or os.path.exists(value)):  # a path may contain "="
            paths.setdefault(languages[0], []).extend(value.split(","))
        elif equals and language in languages:
            paths.setdefault(language, []).extend(path.split(","))
        else:
            raise InputError(
                f"{argument} {value} belongs to none of the languages {' '.join(languages)}; "
                f"write it as {argument} {languages[0]}=PATH."
            )
    return paths


def one_path_each(values: Sequence[str] | None, languages: Sequence[str], argument: str) -> dict[str, str]:
    """The one file that an argument names for each language; several raise `InputError`."""
    paths = paths_by_language(values, languages, argument)
    for language, files in paths.items():
        if len(files) > 1:
            raise InputError(f"{argument} names {len(files)} files for {language} ({' '.join(files)}); give one.")
    return {language: files[0] for language, files in paths.items()}


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 text file, gzipped or not, numbered from 1, without their line ends.

    Raises `InputError` for a line that is not UTF-8, a damaged archive or a file that cannot be opened.
    """
    number = 0
    try:
        with _open(path) as file:
            for number, raw in enumerate(file, start=1):
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                yield number, line.rstrip("\r\n")
    except UnicodeDecodeError:
        raise InputError(f"Line {number} of {path} is not UTF-8; convert the file (iconv -t utf-8).") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"The archive {path} is damaged after line {number}; compress or copy it again.") from None
    except OSError as error:
        raise InputError(f"The file {path} cannot be read ({error.strerror}); check the path.") from None


def _open(path: str | Path) -> gzip.GzipFile | BinaryIO:
    return gzip.open(path, "rb") if str(path).endswith(".gz") else open(path, "rb")


def read_json_lines(path: str | Path, like: str = '{"id": …}') -> Rows:
    """The objects of a file with one JSON object per line, like `like`; blank lines are skipped."""
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"Line {number} of {path} is not JSON ({error}); write one object per line.") from None
        if not isinstance(row, dict):
            raise InputError(f"Line {number} of {path} is not a JSON object; write one like {like}.")
        yield f"Line {number} of {path}", row


def read_csv(path: str | Path, delimiter: str = ",", keep_blank: bool = False) -> Rows:
    """The rows of a CSV table with a header; blank lines are skipped, or rows of empty strings (`keep_blank`)."""
    lines = csv.reader((line + "\n" for _, line in read_lines(path)), delimiter=delimiter)
    try:
        header = next(lines, [])
        for row in lines:
            where = f"Line {lines.line_num} of {path}"
            if len(row) == len(header):
                yield where, dict(zip(header, row))
            elif any(row) or (row and not keep_blank):
                raise InputError(f"{where} has {len(row)} columns; every line needs {len(header)} like the header.")
            elif keep_blank:
                yield where, dict.fromkeys(header, "")
    except csv.Error as error:
        raise InputError(f"The file {path} is not valid CSV ({error}); look for an unclosed quotation mark.") from None


def read_parquet(path: str | Path) -> Rows:
    """The rows of a Parquet file."""
    compressed = str(path).endswith(".gz")
    try:
        with tempfile.TemporaryFile() as unpacked:
            if compressed:  # Parquet is read from its end: an archive has to be unpacked as a whole
                with _open(path) as file:
                    shutil.copyfileobj(file, unpacked)
            content = pyarrow.parquet.ParquetFile(unpacked if compressed else path, buffer_size=2**20)
            rows = (row for batch in content.iter_batches(batch_size=1000) for row in batch.to_pylist())
            for number, row in enumerate(rows, start=1):
                yield f"Row {number} of {path}", row
    except (pyarrow.ArrowInvalid, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"The file {path} is not a Parquet file ({error}); write it again.") from None


READERS: dict[str, Callable[[str], Rows]] = {
    ".jsonl": read_json_lines,
    ".json": read_json_lines,
    ".csv": read_csv,
    ".tsv": partial(read_csv, delimiter="\t"),
    ".parquet": read_parquet,
}


def read_rows(path: str, readers: Mapping[str, Callable[[str], Rows]] = READERS) -> Rows:
    """The rows of a file by column name, each with its place for messages.

    The suffix says which of the readers is used; every format may also be compressed (`.jsonl.gz`).
    Raises `InputError` for an unknown suffix or a damaged file.
    """
    suffix = Path(path.removesuffix(".gz")).suffix
    if suffix not in readers:
        raise InputError(f"The format of {path} is unknown; use {', '.join(readers)}, each also with .gz.")
    return readers[suffix](path)
