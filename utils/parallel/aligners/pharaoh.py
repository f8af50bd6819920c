"""Word links in files, in Pharaoh format."""

import gzip
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

from utils.core.errors import InputError
from utils.core.files import atomic_write
from utils.core.tables import read_lines
from utils.parallel.aligners.base import Links


# A sure link is i-j, a possible one i?j (NAACL 2003 shared task) or ipj (simalign's gold files).
_LINKS = re.compile(r"\s*(?:[0-9]+[-?p][0-9]+(?:\s+|$))*")
_LINK = re.compile(r"[0-9]+[-?p][0-9]+")
_TO_NUMBERS = str.maketrans("-?p", "   ")


def read_links(
    path: str | Path, source_lengths: Sequence[int], english_lengths: Sequence[int], reverse: bool = False
) -> Iterator[Links]:
    """The links of every pair, sorted: line i of `read_pharaoh` belongs to pair i, whose numbers of words are given.

    Raises `InputError` for links that do not fit, and at the end for too many or too few lines.
    """
    n_lines, n_pairs = 0, len(source_lengths)
    lines = read_pharaoh(path, reverse)
    for n_source, n_english, (number, links) in zip(source_lengths, english_lengths, lines):
        # Links are sorted: the last one has the last source word.
        if links and (links[-1][0] >= n_source or max(map(itemgetter(1), links)) >= n_english):
            i, j = next((i, j) for i, j in links if i >= n_source or j >= n_english)
            side, word, n_words = ("source", i, n_source) if i >= n_source else ("English", j, n_english)
            raise InputError(
                f"Line {number} of {path} links {side} word {word} of a sentence with {n_words} words; words are those "
                "between spaces, counted from 0, and if the file has the sides the other way round, read it "
                f"{'without' if reverse else 'with'} --reverse_links."
            )
        n_lines += 1
        yield links
    n_lines += sum(1 for _ in lines)
    if n_lines != n_pairs:
        raise InputError(
            f"The file {path} has {n_lines} lines of links for {n_pairs} sentence pairs; it needs one "
            "for each pair, a blank one where a pair has no links."
            if n_lines
            else f"The file {path} is empty; it needs a line of links for each of {n_pairs} pairs."
        )


def read_pharaoh(path: str | Path, reverse: bool = False) -> Iterator[tuple[int, Links]]:
    """Read Pharaoh links, `0-0 1-2 …` a line, as fast_align, eflomal, awesome-align and simalign write them.

    Yields the number of every line, from 1, and its links, sorted, possible ones (`i?j`, `ipj`) included; `reverse` swaps
    their sides. Lines that begin with `#` are comments.
    """
    for number, line in read_lines(path):
        if line.startswith("#"):
            continue
        if not _LINKS.fullmatch(line):
            wrong = next(link for link in line.split() if not _LINK.fullmatch(link))
            raise InputError(f"Line {number} of {path} has {wrong!r}; write word links as numbers, like 0-0 1-2.")
        numbers = list(map(int, line.translate(_TO_NUMBERS).split()))
        links = zip(numbers[1::2], numbers[::2]) if reverse else zip(numbers[::2], numbers[1::2])
        yield number, sorted(set(links))


def read_header(path: str | Path) -> dict[str, str]:
    """The `# key: value` lines that `write_pharaoh` wrote at the beginning of a file."""
    header = {}
    for _, line in read_lines(path):
        if not line.startswith("#"):
            break
        key, colon, value = line[1:].partition(":")
        if colon:
            header[key.strip()] = value.strip()
    return header


def write_pharaoh(path: str | Path, links: Iterable[Iterable[Sequence[int]]], header: Mapping[str, Any]) -> None:
    """Write the links of every pair and, above them, facts about them; an atomic write, compressed for `.gz`."""
    path = Path(path)
    comments = (f"# {key}: {' '.join(str(value).split())}\n" for key, value in header.items())
    lines = (" ".join(f"{i}-{j}" for i, j in pair) + "\n" for pair in links)
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        # Without name and time the same links make the same archive.
        archive = gzip.GzipFile("", "wb", 6, file, mtime=0) if path.suffix == ".gz" else file
        with io.TextIOWrapper(archive, encoding="utf-8", newline="\n") as text:
            text.writelines(chain(comments, lines))
