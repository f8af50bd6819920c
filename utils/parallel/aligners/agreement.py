"""Word links on which several aligners agree."""

from collections.abc import Sequence

from utils.parallel.aligners.base import ScoredLinks, Sentences, WordAligner


class AgreementAligner(WordAligner):
    """Links that all of several aligners make: fewer, but more often right, than those of each.

    The score of a link is the lowest that an aligner with scores gives it, so that a limit holds for each of them.
    """

    def __init__(self, aligners: Sequence[WordAligner]) -> None:
        self.aligners = aligners
        self.has_scores = any(aligner.has_scores for aligner in aligners)

    def learn(self, source: Sentences, english: Sentences) -> None:
        """Every aligner sees the corpus."""
        for aligner in self.aligners:
            aligner.learn(source, english)

    def score(self, source: Sentences, english: Sentences) -> list[ScoredLinks]:
        """The links of every pair that all aligners make, with the lowest of their scores."""
        found = zip(*(aligner.score(source, english) for aligner in self.aligners))
        return [agreed(links) for links in found]


def agreed(found: Sequence[ScoredLinks]) -> ScoredLinks:
    """The links of a pair that several aligners have all made, with the lowest of their scores (1 from one without scores)."""
    shared = [link for link in found[0] if all(link in links for links in found)]
    return {link: min(links[link] for links in found) for link in shared}
