"""Distances between related and unrelated words: the draw of the words, and what is measured on their vectors.

*Related* are words that are linked across languages in held-out sentence pairs. Each link is compared with an
*unrelated* English word, drawn at random. In a well aligned encoder the related word is nearer than the unrelated one;
Efimov et al. (ECIR 2023) ask what fine-tuning does to that.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import PartialState
from datasets import Dataset
from torch import nn

from utils.alignment.words import WordTokenizer
from utils.core.errors import InputError
from utils.evaluation.neighbours import retrieve, vector_spread
from utils.evaluation.word_vectors import encode_words


@dataclass(frozen=True)
class Triples:
    """N links, each with an unrelated English word. All arrays are [N] and count from 0.

    Attributes:
        pair: row of the bitext.
        source, english: the linked words of that pair, by position.
        unrelated_pair, unrelated: row and position of an English word that `source` is not linked with.
    """

    pair: np.ndarray
    source: np.ndarray
    english: np.ndarray
    unrelated_pair: np.ndarray
    unrelated: np.ndarray

    def __len__(self) -> int:
        return len(self.pair)

    def select(self, kept: np.ndarray) -> "Triples":
        """The triples at some indices, or where a mask is True."""
        return Triples(*(getattr(self, column.name)[kept] for column in fields(self)))

    @property
    def source_words(self) -> np.ndarray:
        """[N, 2]: sentence and position of the source words."""
        return np.stack([self.pair, self.source], axis=1)

    @property
    def english_words(self) -> np.ndarray:
        """[2 N, 2]: sentence and position of the related English words, then of the unrelated ones."""
        related = np.stack([self.pair, self.english], axis=1)
        return np.concatenate([related, np.stack([self.unrelated_pair, self.unrelated], axis=1)])


def draw_triples(bitext: Dataset, max_links: int | None = None, seed: int = 0) -> Triples:
    """Draw links, and an unrelated English word for each of them.

    Half of the unrelated words come from the sentence pair of the link, because encoders mix the words of a context;
    the other half from all other pairs. If one of the two has no candidate, the other is used. A word that is spelt
    like the related one (in any case) or linked with the same source word is not a candidate. Words are drawn before
    tokenization, so that the draw is the same for every model.

    Args:
        bitext: columns `source`, `english` (lists of words) and `links` (lists of `[i, j]`).
        max_links: number of links to draw; None: all.
        seed: seed of the draw.

    Returns:
        The triples in the order of the bitext. A link without an unrelated English word is left out.
    """
    sentences = list(bitext["english"])
    links = np.array([(k, i, j) for k, linked in enumerate(bitext["links"]) for i, j in linked], np.int64)
    links = links.reshape(-1, 3)
    random = np.random.default_rng(seed)
    chosen = np.sort(random.permutation(len(links))[:max_links])
    draws = random.random((len(links), 2))[chosen]

    numbers: dict[str, int] = {}
    spelling = np.array([numbers.setdefault(word.lower(), len(numbers)) for words in sentences for word in words])
    n_words = np.array([len(words) for words in sentences], np.int64)
    first_word = np.cumsum(n_words) - n_words
    linked_with: dict[tuple[int, int], list[int]] = {}
    for pair, i, j in links.tolist():
        linked_with.setdefault((pair, i), []).append(j)

    rows = []
    for (pair, i, j), (coin, place) in zip(links[chosen].tolist(), draws.tolist()):
        first = first_word[pair]
        inside = slice(first, first + n_words[pair])
        unrelated = spelling != spelling[first + j]
        unrelated[first + np.array(linked_with[pair, i])] = False
        here = np.flatnonzero(unrelated[inside]) + first
        unrelated[inside] = False
        elsewhere = np.flatnonzero(unrelated)
        candidates = here if len(here) and (coin < 0.5 or not len(elsewhere)) else elsewhere
        if len(candidates):
            word = candidates[int(place * len(candidates))]
            unrelated_pair = int(np.searchsorted(first_word, word, side="right")) - 1
            rows.append((pair, i, j, unrelated_pair, word - first_word[unrelated_pair]))
    return Triples(*np.array(rows, np.int64).reshape(-1, 5).T)


def with_vectors(triples: Triples, bitext: Dataset, word_tokenizers: Sequence[WordTokenizer]) -> Triples:
    """The triples whose three words have a vector with every one of the tokenizers.

    Some words give no token (`\\u200b`), and long sentences are truncated. A triple that one model cannot measure is
    dropped for all, so that they are compared on the same words.
    """
    if not len(triples):
        return triples
    kept = np.ones(len(triples), bool)
    for side, words in (("source", triples.source_words), ("english", triples.english_words)):
        numbers = np.unique(words[:, 0])
        sentences = list(bitext.select(numbers)[side])
        for word_tokenizer in word_tokenizers:
            tokenized = word_tokenizer(sentences)["words"]
            present = {(k, position) for k, positions in zip(numbers.tolist(), tokenized) for position in positions}
            has_vector = np.array([tuple(word) in present for word in words.tolist()], bool)
            kept &= has_vector.reshape(-1, len(triples)).all(axis=0)
    return triples.select(kept)


def l2_distances(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Euclidean distances [N], from 0, of vectors [N, dimensions], row by row."""
    return (first - second).norm(dim=1)


def cosine_distances(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """1 - cosine of the angle [N], 0 to 2, of vectors [N, dimensions], row by row."""
    return 1 - F.cosine_similarity(first, second)


WORD_DISTANCES = {"l2": l2_distances, "cosine": cosine_distances}


@dataclass(frozen=True)
class WordDistances:
    """What is measured on N links at one layer of one model, by one distance.

    Attributes:
        related: [N], distance of the source word from the English word it is linked with.
        unrelated: [N], its distance from the unrelated English word.
        to_english: word retrieval accuracy (Cao et al., ICLR 2020, section 4), 0 to 1: share of source words whose
            nearest among all linked English words is the one they are linked with.
        from_english: the same from English words to source words.
        spread_source, spread_english: `vector_spread` of all source words, of all linked English words.
    """

    related: np.ndarray
    unrelated: np.ndarray
    to_english: float
    from_english: float
    spread_source: float = 0.0
    spread_english: float = 0.0

    @property
    def is_finite(self) -> bool:
        """Whether all distances are finite; those of a model that diverged are not."""
        return bool(np.isfinite(self.related).all() and np.isfinite(self.unrelated).all())

    @property
    def difference(self) -> np.ndarray:
        """[N]: distance of the unrelated word minus distance of the related one."""
        return self.unrelated - self.related

    @property
    def nearer(self) -> np.ndarray:
        """[N]: 1 where the related word is nearer, 0 where the unrelated one is, 1/2 where they are equally near."""
        return (np.sign(self.difference) + 1) / 2

    @property
    def share_nearer(self) -> float:
        """Share of links whose related word is nearer, 0 to 1; ties count half.

        Like the area under a ROC curve, but each related word is compared with its own unrelated word only.
        """
        return float(self.nearer.mean())


def compare_vectors(
    source: torch.Tensor,
    english: torch.Tensor,
    unrelated: torch.Tensor,
    distance: str,
    device: torch.device | str = "cpu",
) -> WordDistances:
    """Compare source words with related and unrelated English words by their vectors.

    Args:
        source, english, unrelated: [N, dimensions] each, on the CPU.
        distance: a name in `WORD_DISTANCES`.
        device: where nearest neighbours are searched.

    Raises:
        InputError: for an unknown distance.
    """
    if distance not in WORD_DISTANCES:
        raise InputError(f"The distance {distance} is unknown; choose one of {', '.join(WORD_DISTANCES)}.")
    between = WORD_DISTANCES[distance]
    on_device = source.to(device), english.to(device)
    return WordDistances(
        # In double precision: 1 minus a cosine near 1 loses digits.
        between(source.double(), english.double()).numpy(),
        between(source.double(), unrelated.double()).numpy(),
        retrieve(on_device[0], on_device[1], distance).accuracy,
        retrieve(on_device[1], on_device[0], distance).accuracy,
        vector_spread(source, distance),
        vector_spread(english, distance),
    )


def measure_words(
    model: nn.Module,
    word_tokenizer: WordTokenizer,
    bitext: Dataset,
    triples: Triples,
    layers: Sequence[int] = (-1,),
    distances: Sequence[str] = tuple(WORD_DISTANCES),
    batch_size: int = 64,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
    state: PartialState | None = None,
    description: str | None = None,
) -> dict[int, dict[str, WordDistances]]:
    """Encode the words of some triples and compare them, by layer and distance.

    Args:
        model, word_tokenizer: an encoder in evaluation mode, and its tokenizer.
        bitext, triples: the sentences, and the words in them.
        layers: indices into `hidden_states`.
        distances: names in `WORD_DISTANCES`.
        batch_size, autocast, state, description: as for `encode_words`.
    """

    def vectors_of(side: str, words: np.ndarray) -> torch.Tensor:
        sentences = bitext[side]
        return encode_words(model, word_tokenizer, sentences, words, layers, batch_size, autocast, state, description)

    source = vectors_of("source", triples.source_words)
    english, unrelated = vectors_of("english", triples.english_words).chunk(2, dim=1)
    device = next(model.parameters()).device
    return {
        layer: {name: compare_vectors(source[k], english[k], unrelated[k], name, device) for name in distances}
        for k, layer in enumerate(layers)
    }
