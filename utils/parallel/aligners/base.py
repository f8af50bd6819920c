"""What every word aligner does."""

from abc import ABC, abstractmethod
from collections.abc import Sequence


Links = list[tuple[int, int]]
Sentences = Sequence[list[str]]


class WordAligner(ABC):
    """Finds the words of a sentence and of its translation that mean the same; sentences are lists of words."""

    def learn(self, source: Sentences, english: Sentences) -> None:  # noqa: B027
        """See the corpus once, before its pairs are linked batch by batch. Most aligners do not need it."""

    @abstractmethod
    def align(self, source: Sentences, english: Sentences) -> list[Links]:
        """The links of every pair, sorted."""
