"""What every word aligner does."""

from abc import ABC, abstractmethod
from collections.abc import Sequence


Links = list[tuple[int, int]]
# The links of a pair, sorted, each with its score.
ScoredLinks = dict[tuple[int, int], float]
Sentences = Sequence[list[str]]


class WordAligner(ABC):
    """Finds the words of a sentence and of its translation that mean the same; sentences are lists of words."""

    # Whether scores say how sure a link is; otherwise all are 1.
    has_scores = True

    def learn(self, source: Sentences, english: Sentences) -> None:  # noqa: B027
        """See the corpus once, before its pairs are linked batch by batch. Most aligners do not need it."""

    @abstractmethod
    def score(self, source: Sentences, english: Sentences) -> list[ScoredLinks]:
        """The links of every pair, sorted, with their scores: the higher, the surer."""

    def align(self, source: Sentences, english: Sentences) -> list[Links]:
        """The links of every pair, sorted."""
        return [list(links) for links in self.score(source, english)]
