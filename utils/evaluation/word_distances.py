"""How far apart related and unrelated words lie: the draw of the words, their vectors, their distances, what sums them up.

*Related* are words that are linked across languages in held-out sentence pairs. To each such link belongs an *unrelated*
English word, drawn at random. An encoder is well aligned if the related word is nearer than the unrelated one; what
fine-tuning does to that is the question of Efimov et al. (ECIR 2023).
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from torch import nn
from transformers.utils import logging

from utils.alignment.words import WordTokenizer, pool_words
from utils.evaluation.neighbours import retrieve, vector_spread
from utils.models.layers import hidden_states_at


WORD_DISTANCES = ("l2", "cosine")


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
        """Some of them, by number or by a mask."""
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

    Half of the unrelated words come from the sentence pair of the link, where encoders mix the words of a context into
    each other, half from all other pairs; where one of the two has no word to offer, the other one does. A word that
    is spelt like the related one (in whatever case) or linked with the same source word is not unrelated. The draw is
    made among words, before any tokenizer sees them, so that it is the same for every model.

    Args:
        bitext: columns `source`, `english` (lists of words) and `links` (lists of `[i, j]`).
        max_links: draw so many of the links; None: all.
        seed: of the draw.

    Returns:
        The triples in the order of the bitext. A link that no English word is unrelated to is left out.
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
    """The triples whose three words have a vector by every one of the tokenizers.

    A tokenizer makes nothing of some words (`\\u200b`) and cuts long sentences. A triple that one model cannot measure
    is measured by none, so that all are compared on the same words.
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


def encode_words(
    model: nn.Module,
    word_tokenizer: WordTokenizer,
    sentences: Sequence[Sequence[str]],
    words: np.ndarray,
    layers: Sequence[int] = (-1,),
    batch_size: int = 64,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
    state: PartialState | None = None,
    description: str | None = None,
) -> torch.Tensor:
    """The vectors of some words of some sentences at several layers, in one pass; no other vector is kept.

    Args:
        model: an encoder in evaluation mode, on the device that is to do the work.
        word_tokenizer: of that encoder.
        sentences: as lists of words.
        words: [N, 2], sentence and position of every word that is wanted; each must have a vector (`with_vectors`).
        layers: indices into `hidden_states`: 0 the embeddings, -1 the last layer.
        batch_size: sentences encoded at once per process.
        autocast: context of the encoder's passes (mixed precision).
        state: several processes that share the work; each gets the whole result. None: this process does it alone.
        description: what the progress bar says; None for no bar.

    Returns:
        [layers, N, dimensions], fp32, on the CPU.
    """
    # A word that is wanted twice is encoded once; sorted, the words of a sentence stand together.
    wanted, row_of = np.unique(words, axis=0, return_inverse=True)
    numbers, begins = np.unique(wanted[:, 0], return_index=True)
    positions = np.split(wanted[:, 1], begins[1:])
    tokens = word_tokenizer([sentences[k] for k in numbers])
    # Like lengths together, for little padding; the longest first, so that memory runs out at once or never.
    by_length = sorted(range(len(numbers)), key=lambda k: -len(tokens["input_ids"][k]))
    batches = [by_length[begin : begin + batch_size] for begin in range(0, len(by_length), batch_size)]
    share = batches[state.process_index :: state.num_processes] if state else batches
    parts = []
    quiet = description is None or (state is not None and not state.is_main_process)
    for batch in logging.tqdm(share, desc=description, disable=quiet):
        ids = [tokens["input_ids"][k] for k in batch]
        places = [_places(tokens["word_ids"][k], tokens["words"][k], positions[k]) for k in batch]
        rows = np.concatenate([begins[k] + np.arange(len(positions[k])) for k in batch])
        with autocast():
            vectors = _encode_batch(model, ids, places, layers, word_tokenizer.tokenizer.pad_token_id or 0)
        parts.append((rows, vectors))
    parts = gather_object(parts) if state and state.num_processes > 1 else parts
    dimensions = parts[0][1].shape[-1]
    vectors = torch.empty(len(layers), len(wanted), dimensions)
    for rows, of_batch in parts:
        vectors[:, rows] = of_batch
    return vectors[:, row_of.reshape(-1)]


def _places(word_ids: Sequence[int], words: Sequence[int], wanted: np.ndarray) -> np.ndarray:
    """For every token of a sentence which of the wanted words it represents, -1 for none.

    Args:
        word_ids, words: as `WordTokenizer` gives them.
        wanted: positions of words.
    """
    place_of = {position: place for place, position in enumerate(wanted.tolist())}
    place_of_word = np.array([place_of.get(position, -1) for position in words] + [-1])
    return place_of_word[np.asarray(word_ids)]  # (-1, a token of no word, is the last one)


@torch.no_grad()
def _encode_batch(
    model: nn.Module, ids: Sequence[Sequence[int]], places: Sequence[np.ndarray], layers: Sequence[int], pad: int
) -> torch.Tensor:
    """The vectors [layers, words, dimensions] of the words that `places` numbers, sentence after sentence."""
    shape = (len(ids), max(map(len, ids)))
    input_ids, mask, word_ids = np.full(shape, pad), np.zeros(shape, np.int64), np.full(shape, -1)
    n_words = 0
    for row, (sentence, place) in enumerate(zip(ids, places)):
        length = len(sentence)
        input_ids[row, :length], mask[row, :length] = sentence, 1
        word_ids[row, :length] = np.where(place < 0, -1, place + n_words)
        n_words += int(place.max()) + 1
    lengths = np.bincount(word_ids[word_ids >= 0], minlength=n_words).astype(np.float32)
    device = next(model.parameters()).device
    to_device = (torch.from_numpy(array).to(device) for array in (input_ids, mask, word_ids, lengths))
    input_ids, mask, word_ids, lengths = to_device
    states = hidden_states_at(model, input_ids, mask, layers)
    return torch.stack([pool_words(state, word_ids, lengths) for state in states]).cpu()


@dataclass(frozen=True)
class WordDistances:
    """N links at one layer of one model, by one distance.

    Attributes:
        related: [N], distance of the source word from the English word it is linked with.
        unrelated: [N], its distance from the unrelated English word.
        to_english: word retrieval accuracy (Cao et al., ICLR 2020, section 4), 0 to 1: how often the nearest of all
            linked English words is the one that a source word is linked with.
        from_english: the same for English words that look for their source words.
        spread_source, spread_english: how far all source words, all English words lie apart (`utils.evaluation.neighbours.vector_spread`).
    """

    related: np.ndarray
    unrelated: np.ndarray
    to_english: float
    from_english: float
    spread_source: float = 0.0
    spread_english: float = 0.0

    @property
    def is_finite(self) -> bool:
        """Whether all distances are numbers; those of a model that diverged are not."""
        return bool(np.isfinite(self.related).all() and np.isfinite(self.unrelated).all())

    @property
    def difference(self) -> np.ndarray:
        """[N]: how much farther the unrelated word is than the related one, link by link."""
        return self.unrelated - self.related

    @property
    def nearer(self) -> np.ndarray:
        """[N]: 1 where the related word is nearer, 0 where the unrelated one is, 1/2 where they are equally near."""
        return (np.sign(self.difference) + 1) / 2

    @property
    def share_nearer(self) -> float:
        """Share of links whose related word is nearer, ties counted half: like the area under a ROC curve, but every
        related word is held against its own unrelated one only.
        """
        return float(self.nearer.mean())


def distances_between(first: torch.Tensor, second: torch.Tensor, distance: str) -> np.ndarray:
    """Row-by-row distances [N] of vectors [N, dimensions].

    Args:
        first, second: the vectors.
        distance: `l2`, the Euclidean one, from 0; or `cosine`, 1 minus the cosine of the angle, 0 to 2.
    """
    # In double precision: 1 minus a cosine near 1 loses digits.
    first, second = first.double(), second.double()
    if distance == "l2":
        return (first - second).norm(dim=1).numpy(force=True)
    return (1 - F.cosine_similarity(first, second)).numpy(force=True)


def measure_distances(
    source: torch.Tensor,
    english: torch.Tensor,
    unrelated: torch.Tensor,
    distance: str,
    device: torch.device | str = "cpu",
) -> WordDistances:
    """Compare source words with related and unrelated English words by their vectors [N, dimensions].

    The vectors are on the CPU; `device` is where nearest neighbours are looked for.
    """
    on_device = source.to(device), english.to(device)
    return WordDistances(
        distances_between(source, english, distance),
        distances_between(source, unrelated, distance),
        retrieve(*on_device, distance).accuracy,
        retrieve(*reversed(on_device), distance).accuracy,
        vector_spread(source, distance),
        vector_spread(english, distance),
    )


def measure(
    model: nn.Module,
    word_tokenizer: WordTokenizer,
    bitext: Dataset,
    triples: Triples,
    layers: Sequence[int] = (-1,),
    distances: Sequence[str] = WORD_DISTANCES,
    **encoding: Any,  # noqa: ANN401
) -> dict[int, dict[str, WordDistances]]:
    """Encode the words of some triples and compare them, by layer and distance.

    Args:
        model, word_tokenizer: an encoder in evaluation mode, and its tokenizer.
        bitext, triples: the sentences, and the words in them.
        layers: indices into `hidden_states`.
        distances: some of `DISTANCES`.
        encoding: see `encode_words`.
    """
    source = encode_words(model, word_tokenizer, bitext["source"], triples.source_words, layers, **encoding)
    both = encode_words(model, word_tokenizer, bitext["english"], triples.english_words, layers, **encoding)
    english, unrelated = both.chunk(2, dim=1)
    device = next(model.parameters()).device
    return {
        layer: {name: measure_distances(source[k], english[k], unrelated[k], name, device) for name in distances}
        for k, layer in enumerate(layers)
    }
