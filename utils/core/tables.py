"""Tables of text in files: rows by column name, each with its place in the file for messages."""

import csv
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from utils.core.columns import class_names, with_class_names
from utils.core.errors import InputError
from utils.core.text_files import (
    ARCHIVES,
    LARGEST_FILE,
    LONGEST_LINE,
    bare_path,
    check_growth,
    open_binary,
    read_lines,
    read_text,
)


Rows = Iterator[tuple[str, dict[str, Any]]]
csv.field_size_limit(LONGEST_LINE)


def named_language(value: str) -> str:
    """The language that a value LANGUAGE=FILE names; empty for a file alone, whose path may contain "="."""
    from utils.core.arguments import (
        is_language,
    )  # (with Transformers, which scripts that read tables alone start without)

    language, equals, _ = value.partition("=")
    return language if equals and is_language(language) and not os.path.exists(value) else ""


def paths_by_language(values: Sequence[str] | None, languages: Sequence[str], argument: str) -> dict[str, list[str]]:
    """Sort the values of an argument like `--parallel_file hi=a.tsv ru=b.hi,b.en` by language.

    With one language its code is optional. Raises `InputError` for an unknown or missing language.
    """
    if values and not languages:
        raise InputError(
            f"--language is missing: {argument} {values[0]} is the file of a language, which must be named."
        )
    paths: dict[str, list[str]] = {}
    for value in values or []:
        language, equals, path = value.partition("=")
        if len(languages) == 1 and (not equals or os.path.exists(value)):  # a path may contain "="
            paths.setdefault(languages[0], []).extend(_listed_paths(value))
        elif equals and language in languages:
            paths.setdefault(language, []).extend(_listed_paths(path))
        else:
            raise InputError(
                f"{argument} {value} belongs to none of the languages {' '.join(languages)}; "
                f"write it as {argument} LANGUAGE=FILE, with one of them."
            )
    return paths


def languages_of_files(values: Sequence[str] | None) -> list[str]:
    """The languages that the values LANGUAGE=FILE of an argument name, each once."""
    return list(dict.fromkeys(filter(None, map(named_language, values or []))))


def _listed_paths(text: str) -> list[str]:
    """The paths in a list with commas between them. A path of a file that exists may contain commas."""
    parts = text.split(",")
    for end in range(len(parts), 0, -1):
        if os.path.exists(path := ",".join(parts[:end])):
            return [path, *(_listed_paths(",".join(parts[end:])) if parts[end:] else [])]
    return parts


def one_path_each(values: Sequence[str] | None, languages: Sequence[str], argument: str) -> dict[str, str]:
    """The one file that an argument names for each language; several raise `InputError`."""
    paths = paths_by_language(values, languages, argument)
    for language, files in paths.items():
        if len(files) > 1:
            raise InputError(f"{argument} names {len(files)} files for {language} ({' '.join(files)}); give one.")
    return {language: files[0] for language, files in paths.items()}


_WHOLE_LINES = "write one object per line, or copy the file again if it was cut off"


def parse_json(text: str, where: str, remedy: str = _WHOLE_LINES) -> Any:
    """The value of a text; `InputError` if it is not JSON, names something twice, or has too many levels or digits."""
    try:
        value = json.loads(text)
        # (To look at every name takes as long as reading. Each has a colon, so that the names of most rows are known to differ.)
        if not isinstance(value, dict) or text.count(":") > len(value):
            value = json.loads(text, object_pairs_hook=_object)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{where} has half of a surrogate pair (\\ud800 to \\udfff); write whole characters."
        ) from None
    except _TwiceError as error:
        raise InputError(f"{where} has {str(error)[:40]!r} twice in one object; leave one of them out.") from None
    except (RecursionError, ValueError) as error:
        raise InputError(f"{where} is not JSON ({error}); {remedy}.") from None
    return value


class _TwiceError(Exception):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, of whose names none may stand twice: only the last one would count."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(name for name in names if names.count(name) > 1))
    return found


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(path: str | Path, like: str = '{"id": …}') -> Rows:
    """The objects, like `like`, of a JSON file: one per line, or all in one list, which may be the value of `data`."""
    items: Iterator[tuple[str, Any]]
    if (listed := _json_list(path)) is not None:
        items = ((f"Row {number} of {path}", item) for number, item in enumerate(listed, start=1))
    else:
        places = ((f"Line {number} of {path}", line) for number, line in read_lines(path) if line.strip())
        items = ((where, parse_json(line, where)) for where, line in places)
    for where, row in items:
        if not isinstance(row, dict):
            raise InputError(f"{where} is not a JSON object; write one like {like}.")
        yield where, row


def _json_list(path: str | Path) -> list | None:
    """The list that a JSON file holds, or that is its `data`; None if it has one value per line."""
    lines = (line for _, line in read_lines(path, LARGEST_FILE) if line.strip())
    first, has_second = next(lines, ""), next(lines, None) is not None
    is_list = first.lstrip().startswith("[")
    try:
        if has_second and not is_list:
            parse_json(first, f"The first line of {path}")
            return None
    except InputError:
        pass  # an object on several lines, or a line that is not JSON
    try:
        content = parse_json(read_text(path), f"The file {path}", "copy it again if it was cut off")
    except InputError:
        if is_list:
            raise
        return None
    content = content.get("data") if isinstance(content, dict) else content
    if has_second and not isinstance(content, list):
        raise InputError(f"The file {path} has one value on several lines and no list; write one object per line.")
    return content if isinstance(content, list) else None


def _column_names(cells: Sequence[str], path: str | Path) -> Sequence[str]:
    """The header of a table; `InputError` for a name that stands twice. Columns without a name are allowed."""
    twice = next((name for k, name in enumerate(cells) if name and name in cells[:k]), None)
    if twice is not None:
        raise InputError(f"The file {path} has two columns {twice[:40]!r}; give each a name of its own.")
    return cells


def read_csv(path: str | Path, keep_blank: bool = False) -> Rows:
    """The rows of a CSV table with a header; blank lines are skipped, or rows of empty strings (`keep_blank`)."""
    lines = csv.reader((line + "\n" for _, line in read_lines(path)), strict=True)
    try:
        names = _column_names(next(lines, []), path)
        for cells in lines:
            if cells or keep_blank:
                where = f"Line {lines.line_num} of {path}"
                yield where, _row(names, cells or [""] * len(names), where, "a comma")
    except csv.Error as error:
        raise InputError(
            f"The file {path} is not valid CSV near line {lines.line_num} ({error}); look for an unclosed quotation mark."
        ) from None


def read_tsv(path: str | Path, keep_blank: bool = False, names: Sequence[str] | None = None) -> Rows:
    """The rows of a table with tabs, in which quotation marks are text; `names` of its columns if it has no header."""
    for number, line in read_lines(path):
        where, cells = f"Line {number} of {path}", line.split("\t")
        if names is None:
            names = _column_names(cells, path)
        elif line or keep_blank:
            yield where, _row(names, cells if line else [""] * len(names), where, "a tab")


def _row(names: Sequence[str], cells: Sequence[str], where: str, mark: str) -> dict[str, str]:
    if len(cells) != len(names):
        raise InputError(
            f"{where} has {len(cells)}; every line needs {len(names)} columns like the first, with {mark} between them."
        )
    return dict(zip(names, cells))


def _check_values(metadata: pyarrow.parquet.FileMetaData, path: str | Path) -> None:
    """Raise `InputError` if a column has values of more than 16 MiB, before they are read."""
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            if column.total_uncompressed_size > LONGEST_LINE * max(1, column.num_values):
                raise InputError(f"The column {column.path_in_schema[:40]} of {path} has values too large to be text.")


def read_parquet(path: str | Path) -> Rows:
    """The rows of a Parquet file; numbers of classes to which `datasets` has given names there are names."""
    try:
        with tempfile.TemporaryFile() as unpacked:
            if Path(path).suffix in ARCHIVES:  # Parquet is read from its end: an archive has to be unpacked as a whole
                with open_binary(path) as file:
                    while part := file.read(LONGEST_LINE):
                        unpacked.write(part)
                        check_growth(path, unpacked.tell())
            content = pyarrow.parquet.ParquetFile(unpacked if unpacked.tell() else path, buffer_size=2**20)
            _column_names(content.schema_arrow.names, path)
            names, n_read = _class_names(content.schema_arrow, path), 0
            _check_values(content.metadata, path)
            for batch in content.iter_batches(batch_size=100):
                if batch.nbytes > LARGEST_FILE:
                    raise InputError(f"Rows {n_read + 1} to {n_read + len(batch)} of {path} are too large to be text.")
                for number, row in enumerate(batch.to_pylist(), start=n_read + 1):
                    yield f"Row {number} of {path}", with_class_names(row, names)
                n_read += len(batch)
    except InputError:
        raise
    except Exception as error:  # a damaged file can raise almost everything
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"The file {path} is not a Parquet file or is damaged ({reason}); write it again.") from None


def _class_names(schema: pyarrow.Schema, path: str | Path) -> dict[str, list[str]]:
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    try:
        from datasets import Features

        return class_names(Features.from_arrow_schema(schema))
    except Exception as error:  # (whatever else is in that place)
        raise InputError(f"The features that {path} names are damaged ({error!r}); write it again.") from None


READERS: dict[str, Callable[[str], Rows]] = {
    ".jsonl": read_json,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
}


def table_among(paths: Iterable[str]) -> str | None:
    """The first file whose name is that of a table, where text with one sentence per line is expected; None if there is none."""
    return next((path for path in paths if bare_path(path).suffix in READERS), None)


def read_rows(path: str, readers: Mapping[str, Callable[[str], Rows]] = READERS) -> Rows:
    """The rows of a file by column name, each with its place for messages.

    The suffix says which of the readers is used; every format may also be in an archive (`.jsonl.gz`).
    Raises `InputError` for an unknown suffix or a damaged file.
    """
    suffix = bare_path(path).suffix
    if suffix not in readers:
        archives = ", ".join(ARCHIVES)
        raise InputError(f"The format of {path} is unknown; use {', '.join(readers)}, each also with {archives}.")
    return readers[suffix](path)
