"""Alignment objectives (how far apart the two ends of each link are) and the weights of the losses.

A new objective is a class here and an entry in `OBJECTIVES`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.alignment.words import WORD_POOLINGS
from utils.core.arguments import arg
from utils.core.errors import InputError, look_up


class AlignmentObjective(Protocol):
    """Losses [N] of N pairs of words or sentences from their vectors [N, dimensions] and checksums [N].

    A dataclass whose fields are arguments of the same name in `AlignmentArguments`. `description` completes the sentence
    "Translations are …" in `--help` and in model cards. With `has_negatives` the loss of a pair depends on the other pairs:
    those of all processes and accumulated batches of an optimizer step are given to it together.
    """

    description: ClassVar[str]
    has_negatives: ClassVar[bool]

    def __call__(
        self, source: Tensor, english: Tensor, source_spelling: Tensor, english_spelling: Tensor
    ) -> Tensor: ...


@dataclass
class MeanSquaredError:
    """The paper's objective: the squared difference of the linked vectors, averaged over dimensions.

    Efimov et al. (2023), eq. 1; Cao et al. (2020), eq. 2 (there summed over dimensions).
    """

    description: ClassVar[str] = "pulled together by mean squared error"
    has_negatives: ClassVar[bool] = False

    def __call__(self, source: Tensor, english: Tensor, source_spelling: Tensor, english_spelling: Tensor) -> Tensor:
        return (source - english).square().mean(dim=1)


@dataclass
class CosineDistance:
    """One minus the cosine of the linked vectors, which may keep their lengths."""

    description: ClassVar[str] = "pulled together by cosine distance"
    has_negatives: ClassVar[bool] = False

    def __call__(self, source: Tensor, english: Tensor, source_spelling: Tensor, english_spelling: Tensor) -> Tensor:
        return 1 - F.cosine_similarity(source, english, dim=1)


# Which vectors of a batch compete with the right one: those of the other language, or those of both languages.
NEGATIVES = ("other", "both")


@dataclass
class ContrastiveObjective:
    """InfoNCE with in-batch negatives, in both directions.

    Each word should be closer, by cosine similarity, to its link than to any other linked word of the batch. A
    candidate spelled like the right one is not used as a negative: the same word in another sentence should not be pushed away.
    Wu and Dredze (EMNLP 2020); Gaschi et al. (ACL 2023).

    With negatives of `both` languages, the words of the query's own language compete too (Chen et al., ICML 2020), and a
    candidate of either language spelled like the query is not used as a negative either. Of sentences this is the loss of Nguyen,
    Gaschi et al. (2025): -1 / 2|P| Σ [log σ(x, y) + log σ(y, x)], σ a softmax over all other sentences of the batch.
    """

    description: ClassVar[str] = "pulled together by a contrastive loss (InfoNCE with in-batch negatives)"
    has_negatives: ClassVar[bool] = True
    temperature: float = 0.1  # divides the similarities
    contrastive_negatives: str = "other"  # of `NEGATIVES`

    def __call__(self, source: Tensor, english: Tensor, source_spelling: Tensor, english_spelling: Tensor) -> Tensor:
        source, english = F.normalize(source, dim=1), F.normalize(english, dim=1)
        across = source @ english.T / self.temperature
        to_english = self._losses(across, source, source_spelling, english_spelling)
        to_source = self._losses(across.T, english, english_spelling, source_spelling)
        return (to_english + to_source) / 2

    def _losses(self, across: Tensor, queries: Tensor, spelling: Tensor, right_spelling: Tensor) -> Tensor:
        """Losses [N] of queries by their similarities `across` languages [N, N], the right ones on the diagonal."""
        both = self.contrastive_negatives == "both"
        masked = right_spelling.unsqueeze(1) == right_spelling
        masked = masked | (spelling.unsqueeze(1) == right_spelling) if both else masked
        candidates = across.masked_fill(masked.fill_diagonal_(False), float("-inf"))
        if both:
            masked = (spelling.unsqueeze(1) == spelling) | (right_spelling.unsqueeze(1) == spelling)
            own = queries @ queries.T / self.temperature
            candidates = torch.cat([candidates, own.masked_fill(masked, float("-inf"))], dim=1)
        right = torch.arange(len(queries), device=queries.device)
        return F.cross_entropy(candidates, right, reduction="none")


OBJECTIVES: dict[str, type[AlignmentObjective]] = {
    "mse": MeanSquaredError,
    "cosine": CosineDistance,
    "contrastive": ContrastiveObjective,
}


@dataclass(frozen=True)
class AlignmentUnit:
    """What is aligned, and the arguments that are usual for it."""

    description: str
    words: bool
    sentences: bool
    objective: str
    negatives: str


UNITS = {
    "word": AlignmentUnit("words", words=True, sentences=False, objective="mse", negatives="other"),
    "sentence": AlignmentUnit("sentences", words=False, sentences=True, objective="contrastive", negatives="both"),
    "both": AlignmentUnit(
        "words and sentences", words=True, sentences=True, objective="contrastive", negatives="both"
    ),
}


@dataclass(frozen=True)
class LossWeights:
    """How much each of the losses counts. A loss of weight 0 is not computed in training."""

    alignment: float  # of linked words
    regularization: float
    sentence: float = 0.0  # alignment of sentences

    def losses(self) -> dict[str, float]:
        """The weights of the losses that are computed, by the names under which they are logged."""
        weights = {
            "alignment_loss": self.alignment,
            "regularization_loss": self.regularization,
            "sentence_loss": self.sentence,
        }
        return {name: weight for name, weight in weights.items() if weight}

    @property
    def of_language(self) -> str:
        """The name of the alignment loss that is logged for each language: that of words, if they are aligned."""
        return "alignment_loss" if self.alignment or not self.sentence else "sentence_loss"

    def total(self, losses: Mapping[str, Tensor], task_loss: Tensor | None = None) -> Tensor:
        """The weighted sum of the losses, added to a task loss if there is one."""
        terms = [weight * losses[name] for name, weight in self.losses().items()]
        first, *others = terms if task_loss is None else [task_loss, *terms]
        return sum(others, first)


# Efimov et al. (2023), section 3: an adjustment by itself, and continual learning beside a task loss of weight 1.
ADJUSTMENT = LossWeights(alignment=1.0, regularization=1.0)
CONTINUAL = LossWeights(alignment=0.01, regularization=1.0)


@dataclass
class AlignmentArguments:
    """What is pulled together, and how. What is None by default is known after `__post_init__`."""

    alignment_unit: str = arg(
        "word",
        help="Pull together linked words (`word`), sentences, as the means of their tokens, which needs no word links "
        "(`sentence`), or both (`both`).",
        choices=list(UNITS),
        hyperparameter=True,
        variant="unit {}".format,
    )
    word_pooling: str = arg(
        "avg",
        help="A word's vector: the mean of its subwords (`avg`), its first (`start`) or its last (`end`); `token`: "
        "every subword counts as a word.",
        choices=list(WORD_POOLINGS),
        hyperparameter=True,
    )
    alignment_layer: list[int] = arg(
        default_factory=lambda: [-1],
        help="Hidden states that are aligned: 0 the embeddings, -1 the last layer. Of several (`4 -1`) both losses are means "
        "over the layers.",
        hyperparameter=True,
        variant=lambda layers: f"layers {' '.join(map(str, layers))}",
    )
    freeze_layers: list[str] = arg(
        default_factory=lambda: ["0"],
        help="Layers that are not trained, numbered from 0 (layer 0 makes hidden state 1): a range (`0-5`), a list (`2 3 7`), "
        "the lower half (`front`) or the upper one (`back`); a single number N means the first N layers. With --continual "
        "they are frozen for the task as well.",
        hyperparameter=True,
        variant=lambda layers: f"frozen {' '.join(layers)}",
    )
    freeze_embeddings: bool | None = arg(
        None,
        help="Freeze the embeddings. Default: if the first layer is frozen. (AlignFreeze trains them: `--freeze_layers front "
        "--freeze_embeddings false`.)",
        hyperparameter=True,
        variant=lambda frozen: f"embeddings {'frozen' if frozen else 'trained'}",
    )
    alignment_objective: str = arg(
        None,
        help=f"Translations are {'; '.join(f'{kind.description} (`{name}`)' for name, kind in OBJECTIVES.items())}. "
        "Default: mse of words, contrastive of sentences or both.",
        choices=list(OBJECTIVES),
        hyperparameter=True,
        variant=lambda name: None if name == "mse" else name,
    )
    temperature: float = arg(0.1, help="Divides the similarities of `contrastive`.", hyperparameter=True, above=0)
    contrastive_negatives: str = arg(
        None,
        help="Negatives of `contrastive` are the words or sentences of the other language (`other`), or of both languages "
        "(`both`). Default: other of words, both of sentences or both.",
        choices=list(NEGATIVES),
        hyperparameter=True,
        variant=lambda negatives: "negatives both" if negatives == "both" else None,
    )
    alignment_weight: float = arg(
        ADJUSTMENT.alignment,
        help="Weight of the alignment loss.",
        hyperparameter=True,
        variant=lambda weight: None if weight else "alignment_weight 0",
        at_least=0,
    )
    regularization_weight: float = arg(
        ADJUSTMENT.regularization,
        help="Weight of the loss that keeps English words where the original encoder has them.",
        hyperparameter=True,
        variant=lambda weight: None if weight else "regularization_weight 0",
        at_least=0,
    )
    include_special_tokens: bool = arg(
        True, help="Also link [CLS] with [CLS] and [SEP] with [SEP], whatever their names.", hyperparameter=True
    )

    def __post_init__(self) -> None:
        unit = look_up(UNITS, self.alignment_unit, "--alignment_unit")
        self.alignment_objective = self.alignment_objective or unit.objective
        kinds, own = dict[str, Any](OBJECTIVES), {field.name for field in fields(self._kind)}
        for name in [name for kind in kinds.values() for name in vars(kind())]:
            if name not in own and getattr(self, name) != self.__dataclass_fields__[name].default:
                other = next(other for other, kind in kinds.items() if name in vars(kind()))
                raise InputError(
                    f"--{name} does nothing with --alignment_objective {self.alignment_objective}; omit it, or use "
                    f"--alignment_objective {other}."
                )
        if "contrastive_negatives" in own:
            self.contrastive_negatives = self.contrastive_negatives or unit.negatives

    @property
    def needs_links(self) -> bool:
        """Whether words are aligned."""
        return UNITS[self.alignment_unit].words

    @property
    def weights(self) -> LossWeights:
        """The weights of the losses; that of alignment is of words, sentences or each of both."""
        unit, weight = UNITS[self.alignment_unit], self.alignment_weight
        return LossWeights(weight * unit.words, self.regularization_weight, weight * unit.sentences)

    @property
    def _kind(self) -> Any:  # (a dataclass)
        return look_up(OBJECTIVES, self.alignment_objective, "--alignment_objective")

    def objective(self) -> AlignmentObjective:
        """The objective with its arguments."""
        return self._kind(**{field.name: getattr(self, field.name) for field in fields(self._kind)})
