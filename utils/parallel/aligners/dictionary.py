"""Word links looked up in a bilingual word list."""

from collections import defaultdict
from pathlib import Path

from utils.core.errors import InputError
from utils.core.tables import read_lines
from utils.parallel.aligners.base import Links, ScoredLinks, Sentences, WordAligner


class DictionaryAligner(WordAligner):
    """Links every pair of words that a bilingual word list has, such as those of MUSE (Conneau et al., ICLR 2018).

    A word that the list translates by several words of the sentence keeps all these links; the one-to-one filter
    later drops them. Where the same two words occur repeatedly, their occurrences are linked one to one: in order if
    there are equally many on both sides, else those first whose relative positions in the sentences are closest.

    Args:
        path: one entry a line: source word, tab or white space, English word; `#` begins a comment line; `.gz` or
            not. Entries of several words (possible with tabs) never match.
        ignore_case: compare case-folded words.
    """

    has_scores = False

    def __init__(self, path: str | Path, ignore_case: bool = True) -> None:
        self._spelling = str.casefold if ignore_case else str
        self._translations: defaultdict[str, set[str]] = defaultdict(set)
        for number, line in read_lines(path):
            if line.startswith("#") or not line.strip():
                continue
            columns = [column.strip() for column in line.split("\t")] if "\t" in line else line.split()
            if len(columns) != 2 or not all(columns):
                raise InputError(
                    f"Line {number} of {path} is not two words ({line.strip()[:40]!r}); write the source word, a tab "
                    "and the English word."
                )
            source, english = map(self._spelling, columns)
            self._translations[source].add(english)
        if not self._translations:
            raise InputError(f"The file {path} has no entries; give a list of source words with English words.")

    def score(self, source: Sentences, english: Sentences) -> list[ScoredLinks]:
        """The links of every pair; each depends on the pair only."""
        return [dict.fromkeys(self._link(*pair), 1.0) for pair in zip(source, english)]

    def _link(self, source: list[str], english: list[str]) -> Links:
        source_positions, english_positions = self._positions(source), self._positions(english)
        links = []
        for word in source_positions.keys() & self._translations.keys():
            for translation in english_positions.keys() & self._translations[word]:
                here, there = source_positions[word], english_positions[translation]
                links += _pair_up(here, there, len(english) / len(source))
        return sorted(links)

    def _positions(self, words: list[str]) -> dict[str, list[int]]:
        positions: defaultdict[str, list[int]] = defaultdict(list)
        for position, word in enumerate(words):
            positions[self._spelling(word)].append(position)
        return positions


def _pair_up(source: list[int], english: list[int], stretch: float) -> Links:
    if len(source) == len(english):
        return list(zip(source, english))
    links: dict[int, int] = {}
    linked: set[int] = set()
    # The middle of a word is at (i + ½) of its sentence's length.
    for _, i, j in sorted((abs((i + 0.5) * stretch - (j + 0.5)), i, j) for i in source for j in english):
        if i not in links and j not in linked:
            links[i] = j
            linked.add(j)
    return list(links.items())
