"""Text files, compressed or not, in UTF-8 or UTF-16: numbered lines, and never more in memory than a limit."""

import bz2
import codecs
import gzip
import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from utils.core.errors import InputError
from utils.core.progress import progress


# Bytes of the longest line, and of the largest file that is read as a whole.
LONGEST_LINE, LARGEST_FILE = 2**24, 2**27
# An archive may grow to 20 MB, or by this factor. Text becomes 3 to 30 times smaller, a bomb 1,000 times.
_SMALL, _FACTOR = 2 * 10**7, 100
# Bytes after which a bar moves.
_SHOWN_AT_ONCE = 2**18
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def check_file(path: str | Path) -> None:
    """Raise `InputError` if there is no such file (or archive), or if it is one that cannot be read twice: a pipe, a device."""
    path = split_member(path)[0]
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder; name a file in it.")
    if not os.path.exists(path):
        raise InputError(f"There is no file {path}; check the path.")
    if not os.path.isfile(path):
        raise InputError(f"{path} is a pipe or a device, which cannot be read twice; write its content into a file.")


def zip_members(path: str | Path) -> list[str]:
    """The files in a `.zip`, as paths that `read_lines` reads: `ARCHIVE.zip/FILE`."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [
                name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")
            ]
    except (zipfile.BadZipFile, OSError, NotImplementedError, UnicodeError) as error:
        raise InputError(
            f"The archive {path} is damaged or cannot be read ({error}); compress or copy it again."
        ) from None
    return [f"{path}/{name}" for name in names]


def _open_zip(path: str | Path) -> IO[bytes]:
    """A file in an archive, given as `ARCHIVE.zip/FILE`, or as the archive if it has no other."""
    archive, member = split_member(path)
    if not member:
        members = zip_members(archive)
        if len(members) != 1:
            raise InputError(f"The archive {path} has {len(members)} files instead of one; unpack it and name one.")
        archive, member = split_member(members[0])
    try:
        return zipfile.ZipFile(archive).open(member)
    except KeyError:
        raise InputError(f"The archive {archive} has no file {member}; unpack it and look.") from None


def split_member(path: str | Path) -> tuple[str, str]:
    """`ARCHIVE.zip/FILE` as its two parts; other paths with an empty second part."""
    archive, found, member = str(path).partition(".zip/")
    return (f"{archive}.zip", member) if found and os.path.isfile(f"{archive}.zip") else (str(path), "")


ARCHIVES: dict[str, Callable[[Any], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zip": _open_zip,
}


def bare_path(path: str | Path) -> Path:
    """The path without the suffix of an archive."""
    return Path(path).with_suffix("") if Path(path).suffix in ARCHIVES else Path(path)


def open_binary(path: str | Path) -> Any:
    """A file opened for reading bytes, unpacked by its suffix; it has `peek`."""
    if split_member(path)[1]:
        return _open_zip(path)
    return ARCHIVES.get(Path(path).suffix, lambda path: open(path, "rb"))(path)


def _promised_size(path: str | Path) -> int:
    """How long the content of a `.gz` claims to be, so that a bomb need not be unpacked; 0 for other files."""
    if Path(path).suffix != ".gz" or split_member(path)[1]:
        return 0
    with open(path, "rb") as file:
        file.seek(-min(4, os.path.getsize(path)), os.SEEK_END)
        size = int.from_bytes(file.read(), "little")
    return size if size < 1100 * os.path.getsize(path) else 0  # (no archive grows more: this one is damaged)


def check_growth(path: str | Path, n_bytes: int) -> None:
    """Raise `InputError` if a file in an archive is so much larger than the archive that it is not text."""
    if n_bytes > _SMALL and n_bytes > _FACTOR * os.path.getsize(split_member(path)[0]):
        raise InputError(
            f"The archive {path} grows by more than {_FACTOR} times when it is unpacked; check what it is."
        )


def _reading(path: str | Path) -> tqdm:
    """A bar for the bytes of a file, whose number is known unless it is in an archive."""
    size = None if split_member(path)[1] or Path(path).suffix in ARCHIVES else os.path.getsize(path) or None
    return progress(description=f"Reading {Path(path).name}", total=size, unit="B", unit_scale=True, leave=False)


def read_lines(path: str | Path, longest: int = LONGEST_LINE) -> Iterator[tuple[int, str]]:
    """The lines of a text file, compressed or not, numbered from 1, without their line ends.

    Raises `InputError` for a line that is longer or neither UTF-8 nor UTF-16 (with its mark), a damaged archive, or
    a file that cannot be opened.
    """
    number, n_bytes = 0, 0
    try:
        check_growth(path, _promised_size(path))
        with open_binary(path) as file, _reading(path) as bar:
            encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if file.peek(4).startswith(mark)), None)
            text: IO[Any] = io.TextIOWrapper(file, encoding, newline="\n") if encoding else file
            for number, raw in enumerate(iter(lambda: text.readline(longest + 1), text.read(0)), start=1):
                n_bytes += len(raw)
                check_growth(path, n_bytes)
                if n_bytes - bar.n > _SHOWN_AT_ONCE:
                    bar.update(n_bytes - bar.n)
                if len(raw) > longest:
                    raise InputError(
                        f"Line {number} of {path} is longer than {longest:,} bytes; check what the file is."
                    )
                line = raw if encoding else raw.decode("utf-8-sig" if number == 1 else "utf-8")
                if "\0" in line:
                    raise InputError(f"Line {number} of {path} has a NUL character; convert the file to UTF-8.")
                yield number, line.rstrip("\r\n")
    except UnicodeError:
        raise InputError(f"Line {number} of {path} is not UTF-8; convert the file (iconv -t utf-8).") from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError) as error:
        if reason := getattr(error, "strerror", None):
            raise InputError(f"The file {path} cannot be read ({reason}); check the path.") from None
        raise InputError(f"The archive {path} is damaged after line {number}; compress or copy it again.") from None


def read_text(path: str | Path) -> str:
    """A text file as a whole, up to `LARGEST_FILE` bytes; otherwise `InputError`."""
    lines, n_characters = [], 0
    for _, line in read_lines(path, LARGEST_FILE):
        lines.append(line)
        n_characters += len(line)
        if n_characters > LARGEST_FILE:
            raise InputError(f"The file {path} is larger than {LARGEST_FILE:,} bytes; write one JSON object per line.")
    return "\n".join(lines)
