"""Word links in files, in Pharaoh format."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from utils.core.errors import InputError
from utils.core.files import write_lines
from utils.core.text_files import read_lines
from utils.parallel.aligners.base import Links


# A sure link is i-j, a possible one i?j (NAACL 2003 shared task) or ipj (simalign's gold files); i-j:0.9 has a score.
_LINK = re.compile(r"([0-9]{1,30})[-?p]([0-9]{1,30})(?::(-?[0-9]*\.?[0-9]+(?:e[-+]?[0-9]+)?))?", re.IGNORECASE)
_LINKS = re.compile(r"\s*(?:[0-9]{1,30}[-?p][0-9]{1,30}(?:\s+|$))*")
_TO_NUMBERS = str.maketrans("-?p", "   ")
# Scores of the whole sentence after the links, as fast_align and eflomal write them.
_NUMBER = r"[-+]?(?:[0-9]*\.?[0-9]+(?:e[-+]?[0-9]+)?|inf|nan)"
_SENTENCE_SCORES = re.compile(rf"\s*(?:\|\|\||\t)\s*{_NUMBER}(?:\s+{_NUMBER})*\s*", re.IGNORECASE)
# A word in the third line of a sentence pair in GIZA++'s format A3, with the positions of its links.
_GIZA_WORD = re.compile(r"\S+ \(\{([0-9 ]*)\}\)")


def read_links(
    path: str | Path,
    source_lengths: Sequence[int] | np.ndarray,
    english_lengths: Sequence[int] | np.ndarray,
    reverse: bool = False,
    min_score: float | None = None,
) -> Iterator[Links]:
    """The links of every pair, sorted: line i of `read_pharaoh` belongs to pair i, whose numbers of words are given.

    Raises `InputError` for links that do not fit, and at the end for too many or too few lines.
    """
    n_lines, n_pairs = 0, len(source_lengths)
    lines = read_pharaoh(path, reverse, min_score)
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


def read_pharaoh(
    path: str | Path, reverse: bool = False, min_score: float | None = None
) -> Iterator[tuple[int, Links]]:
    """Read Pharaoh links, `0-0 1-2 …` a line, as fast_align, eflomal, awesome-align and simalign write them, or GIZA++'s A3.

    Yields the number of every line, from 1, and its links, sorted, possible ones (`i?j`, `ipj`) included. Lines that begin
    with `#` are comments, and scores of whole sentences are ignored.

    Args:
        reverse: swap the sides of every link.
        min_score: leave out links (`i-j:score`) with a lower score; one without a score raises `InputError`.
    """
    lines = read_lines(path)
    for number, line in lines:
        where = f"Line {number} of {path}"
        if line.startswith("# Sentence pair"):
            next(lines, None)  # the words of the other side
            links = _giza_links(next(lines, (0, ""))[1], where)
        elif line.startswith("#"):
            continue
        elif min_score is None and _LINKS.fullmatch(line):
            numbers = list(map(int, line.translate(_TO_NUMBERS).split()))
            links = list(zip(numbers[::2], numbers[1::2]))
        else:
            links = _scored_links(line, where, min_score)
        yield number, sorted({(j, i) for i, j in links} if reverse else set(links))


def _scored_links(line: str, where: str, min_score: float | None) -> Links:
    scores = _SENTENCE_SCORES.search(line)
    links = []
    for link in line[: scores.start() if scores and scores.end() == len(line) else None].split():
        if not (parts := _LINK.fullmatch(link)):
            raise InputError(f"{where} has {link!r:.40}; write word links as numbers, like 0-0 1-2.")
        if min_score is not None and parts[3] is None:
            raise InputError(
                f"{where} has the link {link} without a score, which --min_link_score needs; leave it out."
            )
        if min_score is None or float(parts[3]) >= min_score:
            links.append((int(parts[1]), int(parts[2])))
    return links


def _giza_links(line: str, where: str) -> Links:
    """The links of `NULL ({ 3 }) word ({ 1 2 }) …`; its words count from 1 after NULL."""
    words = _GIZA_WORD.findall(line)
    if not words:
        raise InputError(
            f"{where} begins a sentence pair of GIZA++, but the links {line[:40]!r} are not in its format A3."
        )
    return [(i, int(j) - 1) for i, positions in enumerate(words[1:]) for j in positions.split()]


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


def write_pharaoh(
    path: str | Path,
    links: Iterable[Iterable[Sequence[int]]],
    header: Mapping[str, Any],
    scores: Iterable[Iterable[float]] | None = None,
) -> None:
    """Write the links of every pair (`0-0`, or `0-0:0.93` with `scores`) and, above them, facts about them."""
    comments = (f"# {key}: {' '.join(str(value).split())}" for key, value in header.items())
    if scores is None:
        lines = (" ".join(f"{i}-{j}" for i, j in pair) for pair in links)
    else:
        lines = (
            " ".join(f"{i}-{j}:{score:.4g}" for (i, j), score in zip(pair, of_pair))
            for pair, of_pair in zip(links, scores)
        )
    write_lines(path, chain(comments, lines))
