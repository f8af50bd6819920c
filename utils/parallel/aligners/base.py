"""What every word aligner does."""

from collections.abc import Sequence
from typing import Protocol


Links = list[tuple[int, int]]


class WordAligner(Protocol):
    """Finds the words of a sentence and its translation that mean the same."""

    def learn(self, source: Sequence[list[str]], english: Sequence[list[str]]) -> None:
        """See, once, the corpus whose pairs are going to be linked in parts. Most aligners need not.

        Args:
            source, english: sentences as lists of words, equally many.
        """

    def align(self, source: Sequence[list[str]], english: Sequence[list[str]]) -> list[Links]:
        """The links of every pair, sorted.

        Args:
            source, english: sentences as lists of words, equally many.
        """
        ...
