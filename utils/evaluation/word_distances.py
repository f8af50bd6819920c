"""Distances between related and unrelated words (Efimov et al., ECIR 2023): the draw of the words, and the measures.

*Related* words are linked across languages in held-out sentence pairs; each link is compared with an *unrelated*
English word, drawn at random. In a well aligned encoder the related word is nearer than the unrelated one.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import PartialState
from datasets import Dataset
from torch import nn

from utils.alignment.words import WordTokenizer
from utils.core.errors import look_up
from utils.evaluation.neighbors import retrieve, vector_spread
from utils.evaluation.vectors import Autocast, encode_words


@dataclass(frozen=True)
class Triples:
    """N links, each with an unrelated English word. All arrays are [N] and count from 0."""

    pair: np.ndarray  # row of the bitext
    source: np.ndarray  # position of the linked source word in that row
    english: np.ndarray  # position of the linked English word
    unrelated_pair: np.ndarray  # row of an English word that the source word is not linked with
    unrelated: np.ndarray  # its position

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
    """Draw links, and an unrelated English word for each of them, in the order of the bitext.

    Half of the unrelated words come from the sentence pair of the link, because encoders mix the words of a context;
    the other half from all other pairs. If one of the two has no candidate, the other is used; if neither has one, the
    link is dropped. A word that is spelled like the related one (ignoring case) or linked with the same source word is
    not a candidate. Words are drawn before tokenization, so that the draw is the same for every model.

    Args:
        bitext: columns `source`, `english` (lists of words) and `links` (lists of `[i, j]`).
        max_links: None: all.
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
    """The triples whose three words have a vector with each of the tokenizers, so that all models measure the same words.

    Some words give no token (`\\u200b`), and long sentences are truncated.
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
    """Euclidean distances [N] of vectors [N, dimensions], row by row."""
    return (first - second).norm(dim=1)


def cosine_distances(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """1 - cosine [N], 0 to 2, of vectors [N, dimensions], row by row."""
    return 1 - F.cosine_similarity(first, second)


WORD_DISTANCES = {"l2": l2_distances, "cosine": cosine_distances}


@dataclass(frozen=True)
class WordDistances:
    """What is measured on N links at one layer of one model, by one distance.

    Word retrieval accuracy (Cao et al., ICLR 2020, section 4), 0 to 1, is the share of words of one language whose
    nearest among all linked words of the other is the one they are linked with.
    """

    related: np.ndarray  # [N], distance of the source word from the English word it is linked with
    unrelated: np.ndarray  # [N], its distance from the unrelated English word
    to_english: float  # word retrieval accuracy of the source words
    from_english: float  # word retrieval accuracy of the English words
    spread_source: float = 0.0  # `vector_spread` of all source words
    spread_english: float = 0.0  # `vector_spread` of all linked English words

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
        """Share of links whose related word is nearer, 0 to 1; ties count half."""
        return float(self.nearer.mean())


def compare_vectors(
    source: torch.Tensor,
    english: torch.Tensor,
    unrelated: torch.Tensor,
    distance: str,
    device: torch.device | str = "cpu",
) -> WordDistances:
    """Compare source words with related and unrelated English words by their vectors [N, dimensions] on the CPU.

    Nearest neighbors are searched on the device. An unknown distance raises an `InputError`.
    """
    between = look_up(WORD_DISTANCES, distance, "The distance")
    source_there, english_there = source.to(device), english.to(device)
    to_english = retrieve(source_there, english_there, distance)
    from_english = retrieve(english_there, source_there, distance)
    to_english.warn_if_collapsed("Source words")
    from_english.warn_if_collapsed("English words")
    return WordDistances(
        # In double precision: 1 minus a cosine near 1 loses digits.
        between(source.double(), english.double()).numpy(),
        between(source.double(), unrelated.double()).numpy(),
        to_english.accuracy,
        from_english.accuracy,
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
    autocast: Autocast = nullcontext,
    state: PartialState | None = None,
    description: str | None = None,
) -> dict[int, dict[str, WordDistances]]:
    """Encode the words of triples (arguments as of `encode_words`) and compare them, by layer and distance."""

    def encode(side: str, words: np.ndarray) -> torch.Tensor:
        sentences = bitext[side]
        return encode_words(model, word_tokenizer, sentences, words, layers, batch_size, autocast, state, description)

    source = encode("source", triples.source_words)
    english, unrelated = encode("english", triples.english_words).chunk(2, dim=1)
    device = next(model.parameters()).device
    return {
        layer: {name: compare_vectors(source[k], english[k], unrelated[k], name, device) for name in distances}
        for k, layer in enumerate(layers)
    }
