"""Word links learned from the corpus alone."""

import math
from functools import cache
from typing import Any

from utils.core.errors import InputError, look_up
from utils.core.progress import progress
from utils.parallel.aligners.base import ScoredLinks, Sentences, WordAligner


# The library's names of what fast_align's atools and Moses call so.
SYMMETRIZATIONS = {
    name: name.replace("-", "_").upper()
    for name in ("intersection", "union", "och", "grow", "grow-diag", "grow-diag-final", "grow-diag-final-and")
}
# The models of `--aligner statistical`: classes of thot.alignment, each starting from the one before it.
STATISTICAL_MODELS = {
    "eflomal": ("EflomalAlignmentModel",),
    "fast_align": ("FastAlignModel",),
    "hmm": ("Ibm1AlignmentModel", "HmmAlignmentModel"),
    "ibm1": ("Ibm1AlignmentModel",),
    "ibm2": ("Ibm1AlignmentModel", "Ibm2AlignmentModel"),
    "ibm3": ("Ibm1AlignmentModel", "HmmAlignmentModel", "Ibm3AlignmentModel"),
    "ibm4": ("Ibm1AlignmentModel", "HmmAlignmentModel", "Ibm3AlignmentModel", "Ibm4AlignmentModel"),
}


class StatisticalAligner(WordAligner):
    """Links from a word alignment model that learns from the given pairs alone, with the library sil-thot.

    The model is trained in both directions and the two are joined. The default is eflomal (Östling and Tiedemann,
    PBML 2016), which makes the fewest errors; fast_align (Dyer et al., NAACL 2013) is faster and usual in the
    literature. All need thousands of pairs, and memory in proportion to the corpus. The score of a link is the geometric
    mean of the probabilities of either word as the translation of the other (0 to 1).

    Args:
        model: one of `STATISTICAL_MODELS`.
        symmetrization: one of `SYMMETRIZATIONS`. `intersection`, the paper's choice, has the fewest wrong links.
    """

    # Letters of lower-cased words that it learns from: inflected forms count as one word, which raises precision and recall.
    _PREFIX = 5
    _ITERATIONS = 5  # of every model in turn, as in GIZA++ and fast_align; eflomal's has a schedule of its own

    def __init__(self, model: str = "eflomal", symmetrization: str = "intersection") -> None:
        self._classes = look_up(STATISTICAL_MODELS, model, "--statistical_model")
        self._heuristic = look_up(SYMMETRIZATIONS, symmetrization, "--symmetrization")
        try:
            import thot.alignment as thot
        except ImportError as error:
            raise InputError(f"--aligner statistical needs sil-thot ({error}); run pip install sil-thot.") from None
        self._thot = thot
        self.model = model
        self.symmetrization = symmetrization
        self._learned: tuple[Any, Any, Any] | None = None

    def learn(self, source: Sentences, english: Sentences) -> None:
        """Train on the pairs; the model then links any pairs."""
        self._learned = self._symmetrized(source, english)

    def score(self, source: Sentences, english: Sentences) -> list[ScoredLinks]:
        """Link pairs with the trained model, or else train on these first.

        The same pairs in the same order get the same links, except a few with fast_align, whose sums depend on the
        order in which its threads finish.
        """
        joined, *directions = self._learned or self._symmetrized(source, english)

        @cache
        def probability(*words: str) -> float:
            """The geometric mean of both directions' translation probabilities."""
            there, back = (
                model.translation_prob(model.get_src_word_index(word), model.get_trg_word_index(other))
                for model, word, other in zip(directions, words, reversed(words))
            )
            return min(math.sqrt(there * back), 1.0)

        stems = [*map(self._stems, source)], [*map(self._stems, english)]
        return [
            {
                (i, j): probability(words[i], others[j])
                for i, j in zip(*(side.tolist() for side in matrix.to_numpy().nonzero()))
            }
            for words, others, (_, matrix) in zip(*stems, joined.get_best_alignments(*stems))
        ]

    def _stems(self, words: list[str]) -> list[str]:
        return [word.lower()[: self._PREFIX] for word in words]

    def _symmetrized(self, source: Sentences, english: Sentences) -> tuple[Any, Any, Any]:
        """The joined model, and those of both directions."""
        directions = self._train(source, english), self._train(english, source)
        joined = self._thot.SymmetrizedAlignmentModel(*directions)
        joined.heuristic = getattr(self._thot.SymmetrizationHeuristic, self._heuristic)
        return joined, *directions

    def _train(self, source: Sentences, target: Sentences) -> Any:
        model = None
        for name in self._classes:
            new_model = getattr(self._thot, name)
            if model is None:
                model = new_model()
                pairs = progress(zip(source, target), "Counting words", len(source), "pairs", leave=False)
                for words, translation in pairs:
                    model.add_sentence_pair(self._stems(words), self._stems(translation))
            else:
                model = new_model(model)
            if self.model == "eflomal":
                model.deterministic = True
            model.start_training()
            iterations = model.scheduled_iterations if self.model == "eflomal" else self._ITERATIONS
            for _ in progress(range(iterations), f"Training {name}", unit="iterations"):
                model.train()
            model.end_training()
        return model
