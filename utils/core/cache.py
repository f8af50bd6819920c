"""Arrow files that are found again as long as what they were made from stays the same."""

import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from datasets import Dataset, Features
from datasets.exceptions import DatasetGenerationError
from datasets.fingerprint import Hasher

from utils.core.errors import InputError
from utils.core.text_files import check_file, split_member


Read = Callable[..., Iterator[dict[str, Any]]]


def cache_key(*functions: Callable, **facts: Any) -> str:
    """A hash under which rows are cached: of the functions that make them and of all other facts they depend on.

    `datasets` knows a function by its name, so that it would return rows made by an older version of it. This key
    covers the modules that define the functions, and all modules of this project that these import. Of a `partial`,
    the values are not part of the key: give them as facts.
    """
    modules: dict[str, str] = {}
    found = [inspect.getmodule(_unwrapped(function)) for function in functions]
    while found:
        module = found.pop()
        if module is not None and module.__name__ not in modules:
            modules[module.__name__] = inspect.getsource(module)
            imported = map(inspect.getmodule, map(_unwrapped, filter(callable, vars(module).values())))
            found += [one for one in imported if one is not None and one.__name__.startswith("utils.")]
    return Hasher.hash([sorted(modules.items()), sorted(facts.items())])


def _unwrapped(function: Any) -> Any:
    while isinstance(function, partial):
        function = function.func
    if not inspect.isroutine(function) and not inspect.isclass(function):
        function = type(function)  # a callable object
    return inspect.unwrap(function)


def dataset_from_files(files: Sequence[str], read: Read, features: Features, key: str, **arguments: Any) -> Dataset:
    """The rows that `read(**arguments)` yields from files, read again only if a file or the `cache_key` has changed.

    Arguments must not be lists, which `datasets` takes for shards. Raises `InputError` for a missing file.
    """
    for path in files:
        check_file(path)
    return dataset_from_rows(read, features, Hasher.hash([list(map(_stamp, files)), key]), **arguments)


def _stamp(path: str) -> tuple[str, int, int]:
    """What changes with a file: its place (also in an archive), and size and time of the file or archive."""
    stat = os.stat(split_member(path)[0])
    return os.path.abspath(path), stat.st_size, stat.st_mtime_ns


def dataset_from_rows(read: Read, features: Features, key: str, **arguments: Any) -> Dataset:
    """The rows that `read(**arguments)` yields, in an Arrow file that is found again by its key."""

    def rows(**arguments: Any) -> Iterator[dict[str, Any]]:
        empty = True
        for row in read(**arguments):
            empty = False
            yield row
        if empty:  # `datasets` cannot make a data set without rows
            raise _NoRowsError

    try:
        return Dataset.from_generator(rows, features=features, gen_kwargs=arguments, fingerprint=key)
    except DatasetGenerationError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, InputError | _NoRowsError):
            cause = cause.__cause__
        if isinstance(cause, _NoRowsError):
            return Dataset.from_dict({name: [] for name in features}, features)
        raise (cause or error) from None


class _NoRowsError(Exception):
    pass
