"""Columns of data sets as arrays, the names of their classes, and the fingerprint of their content."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute
import pyarrow.parquet


if TYPE_CHECKING:
    from datasets import Dataset, Features


def column_array(dataset: "Dataset", name: str) -> np.ndarray:
    """A column of numbers as an array, [rows], or of equally long lists, [rows, items]; no Python object is made."""
    numbers = _array(
        dataset, name, lambda column: column if column.type.num_fields == 0 else column.combine_chunks().flatten()
    )
    return numbers.reshape(len(dataset), -1) if len(numbers) > len(dataset) else numbers


def list_lengths(dataset: "Dataset", name: str) -> np.ndarray:
    """How many items the lists in a column have, [rows]."""
    return _array(dataset, name, pyarrow.compute.list_value_length)


def _array(dataset: "Dataset", name: str, of: Callable[[pyarrow.ChunkedArray], pyarrow.ChunkedArray]) -> np.ndarray:
    batches = dataset.select_columns([name]).with_format("arrow").iter(10_000)
    arrays = [of(batch[name]).to_numpy() for batch in batches]
    return np.concatenate(arrays) if arrays else np.zeros(0, np.int64)


def content_fingerprint(dataset: "Dataset") -> str:
    """The SHA-256 of a data set's rows, by which two runs know that they used the same data."""
    digest = hashlib.sha256()
    for batch in dataset.iter(1000):
        digest.update(json.dumps(batch, sort_keys=True).encode())
    return digest.hexdigest()


def same_content(one: "Dataset", other: "Dataset") -> bool:
    """Whether two data sets have the same rows, and any."""
    return 0 < len(one) == len(other) and one[0] == other[0] and content_fingerprint(one) == content_fingerprint(other)


def class_names(features: "Features") -> dict[str, list[str]]:
    """The names of the classes in columns that hold numbers of classes, or lists of them."""
    from datasets import ClassLabel, List

    kinds = {column: kind.feature if isinstance(kind, List) else kind for column, kind in features.items()}
    return {column: kind.names for column, kind in kinds.items() if isinstance(kind, ClassLabel)}


def with_class_names(row: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A row in which numbers of classes are replaced by the names; a number without a name stays."""

    def named(value: Any, of_column: Sequence[str]) -> Any:
        if isinstance(value, list):
            return [named(one, of_column) for one in value]
        return of_column[value] if isinstance(value, int) and 0 <= value < len(of_column) else value

    return {**row, **{column: named(row[column], of_column) for column, of_column in names.items()}}
