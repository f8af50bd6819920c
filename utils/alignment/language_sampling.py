"""How often pairs of each language are drawn: by their number, by a temperature, or by the losses (a bandit)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.core.arguments import arg
from utils.core.errors import InputError


# The names of `--language_sampling`, for `--help`.
LANGUAGE_SAMPLINGS = {
    "size": "every pair once per epoch",
    "uniform": "every language equally often",
    "temperature": "a language with n pairs in proportion to n^(1/T), T being --sampling_temperature",
    "ucb": "one language per step, more often those with a high alignment loss (a bandit; Nguyen et al., 2026)",
}


@dataclass(frozen=True)
class LanguageSampling:
    """What `--language_sampling` and `--sampling_temperature` say."""

    name: str = "size"
    temperature: float = 5.0

    def shares(self, sizes: Sequence[int] | np.ndarray) -> np.ndarray:
        """The share [languages] of each language among the pairs that are drawn, by the number of its pairs.

        For `temperature`, n^(1/T) over the sum of all (Arivazhagan et al., 2019, with T = 5). Other papers give the
        exponent: 0.7 for mBERT (T = 1.43), 0.3 for XLM-R (Conneau et al., 2020) and mT5 (T = 3.33).
        """
        exponents = {"size": 1.0, "uniform": 0.0, "temperature": 1 / self.temperature}
        counts = np.asarray(sizes, float) ** exponents[self.name]
        return counts / counts.sum()


BY_SIZE = LanguageSampling()


class LanguageBandit:
    """Draws the language of each step by its alignment loss: an upper confidence bound (UCB) and a softmax over languages.

    Nguyen et al. (2026): w = r̄ + 0.1 · sqrt(ln t / (n + 1)), and a language is drawn in proportion to exp(w). r̄ is the mean
    alignment loss of its links (or of its sentence pairs, if only these are aligned) so far, n how often it was drawn, t the
    number of all draws; w is updated every five steps.

    What the formula leaves open: before the first update all languages are equally probable; for a language that was never
    drawn, r̄ is the mean over all links; a step's language is drawn when its batch is prepared, which is before the steps
    that are still to be made with batches prepared earlier. All draws are kept, so that a resumed run repeats them.
    """

    EXPLORATION = 0.1
    EVERY = 5

    def __init__(self, n_languages: int, seed: int) -> None:
        self.seed = seed
        self.shares = np.full(n_languages, 1 / n_languages)  # the probabilities of the next draws
        self.drawn: list[int] = []  # the language of each step

    def language(self, step: int) -> int:
        """The number of the language of a step, from 0; steps are drawn in order."""
        while len(self.drawn) <= step:
            random = np.random.default_rng((self.seed, len(self.drawn)))
            self.drawn.append(int(random.choice(len(self.shares), p=self.shares)))
        return self.drawn[step]

    def update(self, losses: np.ndarray, n_links: np.ndarray) -> None:
        """Change the probabilities by the sums of losses and the numbers of links [languages] so far."""
        mean = losses.sum() / max(n_links.sum(), 1)
        reward = np.divide(losses, n_links, out=np.full(len(losses), mean), where=n_links > 0)
        n_drawn = np.bincount(self.drawn, minlength=len(losses))
        weights = reward + self.EXPLORATION * np.sqrt(np.log(max(len(self.drawn), 1)) / (n_drawn + 1))
        if np.isfinite(weights).all():  # (with --on_nonfinite warn they may not be)
            shares = np.exp(weights - weights.max())
            self.shares = shares / shares.sum()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"drawn": self.drawn, "shares": self.shares.tolist()}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of a checkpoint."""
        self.drawn = [int(language) for language in state["drawn"]]
        self.shares = np.array(state["shares"], dtype=float).reshape(self.shares.shape)


@dataclass
class LanguageSamplingArguments:
    """How often pairs of each language are drawn."""

    language_sampling: str = arg(
        "size",
        help="With several languages, how often each is drawn. "
        f"{'; '.join(f'`{name}`: {what}' for name, what in LANGUAGE_SAMPLINGS.items())}. An epoch has as many steps in all "
        "cases.",
        choices=list(LANGUAGE_SAMPLINGS),
        hyperparameter=True,
        variant=True,
    )
    sampling_temperature: float = arg(
        LanguageSampling.temperature,
        help="T of `--language_sampling temperature`: 1 is by size, more is more even. XLM-R's exponent 0.3 is 3.33.",
        hyperparameter=True,
        at_least=1,
    )

    @property
    def sampling(self) -> LanguageSampling:
        """Both as one object."""
        return LanguageSampling(self.language_sampling, self.sampling_temperature)

    def check_sampling(self, languages: Sequence[str], losses: Collection[str], order: str = "random") -> None:
        """Raise `InputError` if an argument has no effect, given the run's languages, losses and order of pairs."""
        if self.language_sampling != "size" and len(languages) < 2:
            raise InputError(
                f"--language_sampling {self.language_sampling} has no effect with one language; omit it, or name more "
                "--languages."
            )
        if self.language_sampling == "ucb" and not {"alignment_loss", "sentence_loss"} & set(losses):
            raise InputError("--language_sampling ucb goes by the alignment loss; give an --alignment_weight above 0.")
        if self.language_sampling != "size" and order == "sequential":
            raise InputError(
                f"--language_sampling {self.language_sampling} draws at random, --train_sampling_strategy sequential does "
                "not; omit one."
            )
        usual = LanguageSampling.temperature
        if self.sampling_temperature != usual and self.language_sampling != "temperature":
            raise InputError(
                f"--sampling_temperature {self.sampling_temperature} has no effect without --language_sampling "
                "temperature; add it."
            )
