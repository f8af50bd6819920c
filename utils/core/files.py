"""Files written atomically: a reader sees the old file or the new one, never a part of it."""

import gzip
import hashlib
import io
import json
import logging
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from filelock import BaseFileLock, FileLock, Timeout

from utils.core.errors import AT_END, InputError
from utils.core.progress import is_first_process


logger = logging.getLogger(__name__)

# What a run writes into its output folder, besides model and checkpoints.
RESULTS = ("*_results.json", "run.json", "predictions", "README.md", "losses.png", "report.html", "trainer_state.json")
# (The Hub's uploads leave out files whose names begin with `_`.)
_LOCK = "_lock"


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary file that replaces `path` at the end, but not if the block raises or the process is killed in it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically, with the same bytes on every system.

    What UTF-8 cannot say (half of a surrogate pair) is written as JSON does, `\\ud800`.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON atomically, indented, with sorted keys."""
    write_text(path, json_text(content, indent=2, sort_keys=True) + "\n")


def write_json_lines(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line, atomically."""
    write_text(path, "".join(f"{json_text(row)}\n" for row in rows))


def write_lines(path: str | Path, lines: Iterable[str]) -> None:
    """Write a text file atomically, compressed for `.gz`."""
    path = Path(path)
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        # Without name and time the same lines make the same archive.
        archive = gzip.GzipFile("", "wb", 6, file, mtime=0) if path.suffix == ".gz" else file
        with io.TextIOWrapper(archive, encoding="utf-8", newline="\n") as text:
            text.writelines(f"{line}\n" for line in lines)


def json_text(content: Any, **layout: Any) -> str:
    """Valid JSON: a number that is not finite is null, one of NumPy is a number, and what JSON has no type for is a text."""
    return json.dumps(json_values(content), ensure_ascii=False, allow_nan=False, default=str, **layout)


def json_values(content: Any) -> Any:
    """The content of `json_text`, as a reader would get it."""
    if isinstance(content, Mapping):
        return {name: json_values(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [json_values(value) for value in content]
    if isinstance(content, np.generic):
        content = content.item()
    return None if isinstance(content, float) and not math.isfinite(content) else content


def read_json_object(path: str | Path, remedy: str) -> dict[str, Any]:
    """The content of a JSON file that holds an object; otherwise InputError, whose message ends with the remedy."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"The file {path} cannot be read ({error.strerror}); {remedy}.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"The file {path} is not JSON ({error}); {remedy}.") from None
    if not isinstance(content, dict):
        raise InputError(f"The file {path} does not hold a JSON object; {remedy}.")
    return content


def check_output_dir(
    output_dir: str | Path, overwrite: bool = False, but: Collection[str] = (), remedy: str = ""
) -> None:
    """Lock the output folder. InputError if it is a file or, without `overwrite`, not empty: no earlier result is lost.

    What has a name in `but` is no result, nor are hidden files, such as a killed process leaves. `remedy` is what else the
    user could do.
    """
    folder = Path(output_dir)
    lock_folder(folder)
    names = (file.name for file in folder.iterdir())
    found = min((name for name in names if name != _LOCK and name[0] != "." and name not in but), default=None)
    if found and not overwrite:
        if (folder / "run.json").is_file():  # (written last: there is nothing to go on with)
            found, remedy = "a finished run", ""
        raise InputError(
            f"The folder --output_dir {folder} is not empty (it holds {found}); {remedy}{', ' * bool(remedy)}choose another one, or "
            "add --overwrite_output_dir to write into it."
        )


def lock_folder(folder: Path) -> None:
    """Make a folder, and lock it until the script ends; of several processes of a run the first one does it.

    Raises:
        InputError: if it is a file, if another process has locked it, or if it cannot be written.
    """
    if os.path.isfile(folder):
        raise InputError(f"--output_dir {folder} is a file; give the name of a folder.")
    is_new = not os.path.exists(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if is_first_process():
            lock = FileLock(folder / _LOCK, is_singleton=True)
            lock.acquire(timeout=0)
            AT_END.callback(_unlock, lock, folder, is_new)
    except Timeout:
        raise InputError(
            f"Another process writes into --output_dir {folder}; wait, or choose another folder."
        ) from None
    except OSError as error:
        raise InputError(
            f"--output_dir {folder} cannot be written ({error.strerror}); choose another folder."
        ) from None


def is_locked(folder: Path) -> bool:
    """Whether a script that is running has locked a folder (`lock_folder`)."""
    if not (folder / _LOCK).exists():
        return False
    try:
        FileLock(folder / _LOCK).acquire(timeout=0).lock.release()
    except Timeout:
        return True
    return False


def _unlock(lock: BaseFileLock, folder: Path, is_new: bool) -> None:
    with suppress(PermissionError):  # Windows removes no open file; there, `release` does it
        Path(lock.lock_file).unlink(missing_ok=True)
    lock.release(force=True)
    if is_new:  # and nothing was written
        with suppress(OSError):
            folder.rmdir()


def set_aside(folder: Path, patterns: Iterable[str]) -> None:
    """Move what earlier runs have left in a folder under these names into a new folder `_earlier-N` in it."""
    if found := [path for pattern in patterns for path in sorted(folder.glob(pattern))]:
        aside = next(path for k in count(1) if not (path := folder / f"_earlier-{k}").exists())
        aside.mkdir()
        for path in found:
            path.rename(aside / path.name)
        logger.warning(
            f"What an earlier run has left in {folder} is now in {aside.name}: {', '.join(p.name for p in found)}."
        )


def file_fingerprint(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
