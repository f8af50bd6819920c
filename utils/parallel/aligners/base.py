"""What every word aligner does."""

from abc import ABC, abstractmethod
from collections.abc import Sequence


Links = list[tuple[int, int]]


class WordAligner(ABC):
    """Finds the words of a sentence and of its translation that mean the same."""

    def learn(self, source: Sequence[list[str]], english: Sequence[list[str]]) -> None:  # noqa: B027
        """See the corpus once, before its pairs are linked batch by batch. Most aligners do not need it.

        Args:
            source, english: sentences as lists of words, of equal number.
        """

    @abstractmethod
    def align(self, source: Sequence[list[str]], english: Sequence[list[str]]) -> list[Links]:
        """The links of every pair, sorted.

        Args:
            source, english: sentences as lists of words, of equal number.
        """
