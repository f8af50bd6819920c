"""Word links learnt from the corpus alone."""

from collections.abc import Iterable, Sequence
from typing import Any

from transformers.utils.logging import tqdm

from utils.core.errors import InputError
from utils.parallel.aligners.base import Links, WordAligner


# Names as fast_align's atools and Moses have them; the library's are the same in capitals.
SYMMETRIZATIONS = ("intersection", "union", "och", "grow", "grow-diag", "grow-diag-final", "grow-diag-final-and")
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

    The model is trained in both directions and the two are joined. The default model is that of eflomal (Östling and
    Tiedemann, PBML 2016), which makes the fewest errors of those in the library; fast_align (Dyer et al., NAACL
    2013) is the faster one and the one usual in the literature. All need pairs by the thousand, better more.

    It is the one aligner whose memory grows with the corpus: while it learns, the library holds all sentences, as
    numbers of words, and its statistics, in both directions.

    Args:
        model: one of `STATISTICAL_MODELS`.
        symmetrization: one of `SYMMETRIZATIONS`. `intersection`, the paper's choice, has the fewest wrong links.
        prefix: learn from the first letters of lower-cased words, this many of them; None: from words as they are.
            Inflected forms then count as one word, which raises precision and recall alike.

    Raises:
        InputError: for an unknown name, or if the library is not installed.
    """

    _ITERATIONS = 5  # of every model in turn, as GIZA++ and fast_align have it; eflomal's has a schedule of its own

    def __init__(self, model: str = "eflomal", symmetrization: str = "intersection", prefix: int | None = 5) -> None:
        for value, names, what in (
            (model, STATISTICAL_MODELS, "--statistical_model"),
            (symmetrization, SYMMETRIZATIONS, "--symmetrization"),
        ):
            if value not in names:
                raise InputError(f"{what} {value} is unknown; choose one of {', '.join(names)}.")
        try:
            import thot.alignment as thot
        except ImportError as error:
            raise InputError(f"--aligner statistical needs sil-thot ({error}); run pip install sil-thot.") from None
        self._thot = thot
        self.model = model
        self.symmetrization = symmetrization
        self.prefix = prefix
        self._learnt = None

    def learn(self, source: Sequence[list[str]], english: Sequence[list[str]]) -> None:
        """Train on the pairs, by which others are linked from then on."""
        self._learnt = self._symmetrized(source, english)

    def align(self, source: Sequence[list[str]], english: Sequence[list[str]]) -> list[Links]:
        """Link pairs by what was learnt, or else train on these first.

        The same pairs in the same order get the same links (with fast_align, which adds up in whatever order its
        threads finish, all but a few).
        """
        joined = self._learnt or self._symmetrized(source, english)
        return [
            list(zip(*(positions.tolist() for positions in matrix.to_numpy().nonzero())))
            for _, matrix in joined.get_best_alignments([*map(self._stems, source)], [*map(self._stems, english)])
        ]

    def _stems(self, words: list[str]) -> list[str]:
        return [word.lower()[: self.prefix] for word in words] if self.prefix else words

    def _symmetrized(self, source: Iterable[list[str]], english: Iterable[list[str]]) -> Any:  # noqa: ANN401
        joined = self._thot.SymmetrizedAlignmentModel(self._train(source, english), self._train(english, source))
        heuristic = self.symmetrization.replace("-", "_").upper()
        joined.heuristic = getattr(self._thot.SymmetrizationHeuristic, heuristic)
        return joined

    def _train(self, source: Iterable[list[str]], target: Iterable[list[str]]) -> Any:  # noqa: ANN401
        model = None
        for name in STATISTICAL_MODELS[self.model]:
            new_model = getattr(self._thot, name)
            if model is None:
                model = new_model()
                for words, translation in zip(source, target):
                    model.add_sentence_pair(self._stems(words), self._stems(translation))
            else:
                model = new_model(model)
            if self.model == "eflomal":
                model.deterministic = True
            model.start_training()
            iterations = model.scheduled_iterations if self.model == "eflomal" else self._ITERATIONS
            for _ in tqdm(range(iterations), desc=f"Training {name}"):
                model.train()
            model.end_training()
        return model
