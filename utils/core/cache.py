"""Arrow files that are found again as long as what they were made from stays the same."""

import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from datasets import Dataset, Features
from datasets.exceptions import DatasetGenerationError
from datasets.fingerprint import Hasher

from utils.core.errors import InputError


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


def code_of(*functions: Callable) -> str:
    """A hash of the modules that functions stand in, for what is cached under it.

    `datasets` knows a module's function by its name alone, and would hand out what an older version has made.
    """
    return Hasher.hash([inspect.getsource(inspect.getmodule(function)) for function in functions])
