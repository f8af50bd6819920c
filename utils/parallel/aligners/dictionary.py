"""Word links looked up in a bilingual word list, and word lists made of word links."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.core.errors import InputError
from utils.core.files import write_lines
from utils.core.tables import read_lines
from utils.parallel.aligners.base import Links, ScoredLinks, Sentences, WordAligner


# What follows the two words on a line of a list with probabilities.
_COLUMNS = ("count", "p(English|source)", "p(source|English)")


class DictionaryAligner(WordAligner):
    """Links every pair of words that a bilingual word list has, such as those of MUSE (Conneau et al., ICLR 2018).

    Words are compared case-folded. Where words of the sentence have several translations in the other, a link is kept if it is
    the most probable one of both its words; without probabilities all are, which the one-to-one filter later drops. Where the same two words
    occur repeatedly, their occurrences are linked one to one: in order if there are equally many on both sides, else those
    first whose relative positions in the sentences are closest.

    Args:
        path: one entry a line: source word, tab or white space, English word; `#` begins a comment line; `.gz` or
            not. Entries of several words (possible with tabs) never match. In all lines or in none, a tab, the count and
            both probabilities follow, as `write_dictionary` writes them; the score of a link is their geometric mean.
    """

    def __init__(self, path: str | Path) -> None:
        self._translations: defaultdict[str, dict[str, float]] = defaultdict(dict)
        n_columns = None
        for number, line in read_lines(path):
            if line.startswith("#") or not line.strip():
                continue
            columns = [column.strip() for column in line.split("\t")] if "\t" in line else line.split()
            n_columns = n_columns or len(columns)
            if len(columns) != n_columns or n_columns not in (2, 2 + len(_COLUMNS)) or not all(columns):
                raise InputError(
                    f"Line {number} of {path} is not two words ({line.strip()[:40]!r}); write the source word, a tab "
                    "and the English word, and in all lines or in none the count and both probabilities."
                )
            source, english = map(str.casefold, columns[:2])
            score = _geometric_mean(columns[3:], f"Line {number} of {path}")
            self._translations[source][english] = max(score, self._translations[source].get(english, 0.0))
        if not self._translations:
            raise InputError(f"The file {path} has no entries; give a list of source words with English words.")
        self.has_scores = n_columns != 2

    def score(self, source: Sentences, english: Sentences) -> list[ScoredLinks]:
        """The links of every pair; each depends on the pair only."""
        return [self._link(*pair) for pair in zip(source, english)]

    def _link(self, source: list[str], english: list[str]) -> ScoredLinks:
        source_positions, english_positions = self._positions(source), self._positions(english)
        found, best = [], defaultdict[tuple[str, str], float](float)
        for word in source_positions.keys() & self._translations.keys():
            for translation in english_positions.keys() & self._translations[word].keys():
                score = self._translations[word][translation]
                found.append((word, translation, score))
                for side in (("source", word), ("english", translation)):
                    best[side] = max(best[side], score)
        links: ScoredLinks = {}
        for word, translation, score in found:
            if score == best["source", word] == best["english", translation]:
                here, there = source_positions[word], english_positions[translation]
                links |= dict.fromkeys(_pair_up(here, there, len(english) / len(source)), score)
        return dict(sorted(links.items()))

    def _positions(self, words: list[str]) -> dict[str, list[int]]:
        positions: defaultdict[str, list[int]] = defaultdict(list)
        for position, word in enumerate(words):
            positions[word.casefold()].append(position)
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


def _geometric_mean(columns: Sequence[str], where: str) -> float:
    """Of the probabilities in the last columns of an entry, 1 without any; others than from 0 to 1 raise `InputError`."""
    try:
        probabilities = [float(column) for column in columns]
    except ValueError:
        probabilities = [math.nan]
    if not all(0 <= probability <= 1 for probability in probabilities):
        raise InputError(
            f"{where} has {' and '.join(columns)!r:.60}, which are not probabilities; write numbers from 0 to 1."
        )
    return math.sqrt(math.prod(probabilities))


def write_dictionary(
    path: str | Path,
    linked: Iterable[tuple[Sequence[str], Sequence[str], Links]],
    min_count: int,
    header: Mapping[str, Any],
) -> int:
    """Write the links of pairs (source words, English words, links) as a word list for `DictionaryAligner`.

    An entry a line, tab-separated, with how often the two words are linked, and this count divided by that of all links
    of the source word, and of the English word. Words are case-folded. Entries with a smaller count than `min_count`
    take part in these sums, and are not written. Nor are words that begin with `#`, as comments do. The entries are
    sorted by source word, the most frequent first. Returns their number.
    """
    counts = Counter(
        (source[i].casefold(), english[j].casefold()) for source, english, links in linked for i, j in links
    )
    of_source, of_english = Counter[str](), Counter[str]()
    for (word, translation), count in counts.items():
        of_source[word] += count
        of_english[translation] += count
    entries = sorted(
        (word, -count, translation)
        for (word, translation), count in counts.items()
        if count >= min_count and not word.startswith("#")
    )

    def lines() -> Iterator[str]:
        yield from (f"# {key}: {' '.join(str(value).split())}" for key, value in header.items())
        yield "# " + "\t".join(["source word", "English word", *_COLUMNS])
        for word, minus_count, translation in entries:
            shares = (-minus_count / total for total in (of_source[word], of_english[translation]))
            yield "\t".join([word, translation, str(-minus_count), *(f"{share:.4g}" for share in shares)])

    write_lines(path, lines())
    return len(entries)
