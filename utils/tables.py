"""Tables of text, whatever they are kept in: files, data sets on the Hub or in a folder. Every row knows its place."""

import csv
import gzip
import hashlib
import inspect
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow.compute
import pyarrow.parquet
from datasets import (
    Dataset,
    Features,
    IterableDataset,
    get_dataset_config_names,
    load_dataset,
    load_dataset_builder,
)
from datasets.exceptions import DatasetGenerationError, DatasetsError
from datasets.fingerprint import Hasher

from utils.errors import InputError


# --- Files -------------------------------------------------------------------------------------------------------


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


def dataset_from_files(
    files: Sequence[str],
    read: Callable[..., Iterator[dict[str, Any]]],
    features: Features,
    made_with: Sequence[Any],
    **arguments: Any,  # noqa: ANN401
) -> Dataset:
    """A data set of what `read(**arguments)` yields, found again as long as the files stay as they are.

    Args:
        files: what is read; they must exist.
        read: yields rows. (Lists among its arguments would be taken for shards: give tuples.)
        features: of the rows.
        made_with: whatever else the rows depend on.

    Raises:
        InputError: for a missing file, or from `read`.
    """
    for path in files:
        if not os.path.isfile(path):
            raise InputError(f"There is no file {path}; check the path.")
    stamps = [(os.path.abspath(path), os.path.getsize(path), os.stat(path).st_mtime_ns) for path in files]
    return dataset_from_rows(read, features, Hasher.hash([stamps, *made_with]), **arguments)


def dataset_from_rows(
    read: Callable[..., Iterator[dict[str, Any]]],
    features: Features,
    fingerprint: str,
    **arguments: Any,  # noqa: ANN401
) -> Dataset:
    """A data set of what `read(**arguments)` yields, in an Arrow file that is found again by its fingerprint.

    Raises:
        InputError: from `read`.
    """
    try:
        return Dataset.from_generator(read, features=features, gen_kwargs=arguments, fingerprint=fingerprint)
    except DatasetGenerationError as error:
        cause = error.__cause__
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__
        raise (cause or error) from None


# --- Data sets ---------------------------------------------------------------------------------------------------


def load_split(
    dataset_name: str,
    language: str,
    configs: Sequence[str],
    splits: Sequence[str],
    arguments: Mapping[str, str],
    streaming: bool = False,
    **hub_options: Any,  # noqa: ANN401
) -> tuple[Dataset | IterableDataset, str, str]:
    """Find the part of a data set on the Hub or in a local folder that holds a language.

    Args:
        dataset_name: Hub id or folder.
        language: code of the language.
        configs: configurations, of which the first that there is gets read; `{language}` stands for the language. A
            data set without configurations has one of its own.
        splits: likewise.
        arguments: what the command line calls `config` and `split`, for messages.
        streaming: download nothing, but read rows as they are asked for.
        hub_options: `cache_dir`, `token`.

    Returns:
        The rows, the configuration and the split.

    Raises:
        InputError: naming what the data set offers instead.
    """
    where = f"The data set {dataset_name}"
    try:
        offered = get_dataset_config_names(dataset_name, **hub_options)
        wanted = [*configs, *(offered if offered == ["default"] else [])]
        config = first_offered(wanted, offered, language, f"{where} has no configuration", arguments["config"])
        parts = load_dataset(dataset_name, config, streaming=streaming, **hub_options)
    except (DatasetsError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{where} cannot be loaded ({reason}); check its name.") from None
    where = f"{where} ({config})"
    split = first_offered(splits, list(parts), language, f"{where} has no split", arguments["split"])
    if not streaming and not len(parts[split]):
        raise InputError(f"{where} has nothing in its split {split}; choose one with {arguments['split']}.")
    return parts[split], config, split


def first_offered(wanted: Sequence[str], offered: Sequence[str], language: str, lacks: str, argument: str) -> str:
    """The first of the wanted names that is offered; `lacks` begins the sentence that says that there is none."""
    wanted = [name.format(language=language) for name in wanted]
    found = next((name for name in wanted if name in offered), None)
    if found is None:
        # Of the 183 configurations of google/xtreme only those of `tatoeba.…` are of interest.
        tasks = tuple(name.split(".")[0] + "." for name in wanted)
        named = ", ".join([name for name in offered if name.startswith(tasks)] or offered) or "none at all"
        tried = " or ".join(name for name in wanted if not name.startswith("translation."))
        raise InputError(f"{lacks} {tried}, only {named}; choose one with {argument}.")
    return found


def code_of(*functions: Callable) -> str:
    """A hash of the modules that functions stand in, for what is cached under it.

    `datasets` knows a module's function by its name alone, and would hand out what an older version has made.
    """
    return Hasher.hash([inspect.getsource(inspect.getmodule(function)) for function in functions])


def stream_fingerprint(dataset_name: str, config: str, split: str, **hub_options: Any) -> str:  # noqa: ANN401
    """Tells a data set that is only streamed from another one, and from itself with other files."""
    builder = load_dataset_builder(dataset_name, config, **hub_options)
    return Hasher.hash([dataset_name, config, split, builder.config_id, builder.hash])


# --- Columns -----------------------------------------------------------------------------------------------------


def column_array(dataset: Dataset, name: str) -> np.ndarray:
    """A column of numbers as an array, [rows], or of lists that are equally long, [rows, items].

    No Python object is made of any of them.
    """
    numbers = _array(
        dataset, name, lambda column: column if column.type.num_fields == 0 else column.combine_chunks().flatten()
    )
    return numbers.reshape(len(dataset), -1) if len(numbers) > len(dataset) else numbers


def list_lengths(dataset: Dataset, name: str) -> np.ndarray:
    """How many items the lists in a column have, [rows]."""
    return _array(dataset, name, pyarrow.compute.list_value_length)


def _array(dataset: Dataset, name: str, of: Callable[[pyarrow.ChunkedArray], pyarrow.ChunkedArray]) -> np.ndarray:
    batches = dataset.select_columns([name]).with_format("arrow").iter(10_000)
    arrays = [of(batch[name]).to_numpy() for batch in batches]
    return np.concatenate(arrays) if arrays else np.zeros(0, np.int64)


def content_fingerprint(dataset: Dataset) -> str:
    """The SHA-256 of a data set's rows, by which two runs know that they used the same data."""
    digest = hashlib.sha256()
    for batch in dataset.iter(1000):
        digest.update(json.dumps(batch, sort_keys=True).encode())
    return digest.hexdigest()
