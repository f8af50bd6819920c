"""Word links from the encoder's own vectors."""

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TypeAlias, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from utils.alignment.pairs import AlignmentCollator
from utils.alignment.words import WordTokenizer, word_vectors
from utils.core.errors import InputError
from utils.core.progress import progress
from utils.models.layers import in_evaluation_mode, only_layers_below
from utils.parallel.aligners.base import ScoredLinks, Sentences, WordAligner


logger = logging.getLogger(__name__)

T = TypeVar("T")
# What is made of the cosines [batch, source words, English words] of a batch, given which words exist [batch, words].
Find: TypeAlias = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], T]


class EncoderAligner(WordAligner):
    """Links words that are each other's nearest by the cosine of their vectors in a middle layer of an encoder.

    Jalili Sabet et al., Findings of EMNLP 2020 ("inter-argmax", words as averages of their subwords). No word gets
    more than one link; special tokens and words without vector (cut off, or tokenized to nothing) get none. The score
    of a link is that cosine.

    Args:
        model: the encoder; the work is done on its device.
        word_tokenizer: tokenizes both sides. A word is the average of all its tokens even where this pools the first
            or last only: that makes better links.
        layer: index into `hidden_states`. None: the one that links most words in up to `_PROBE_PAIRS` of the pairs;
            that count is highest where the links agree best with people's, or next to it
            (`benchmarks/compare_aligners.py`).
        batch_size: pairs that go through the encoder at once.
    """

    _PROBE_PAIRS = 512
    # Links per word of the shorter side: the sample encoder has 0.73 to 0.88 in es, ru, vi, hi and sw, 0.41 to 0.51 in Latin letters.
    _FEW_LINKS = 0.6
    _BATCHES_IN_POOL = 64  # tokenized together; pairs are sorted by length within them

    def __init__(
        self, model: PreTrainedModel, word_tokenizer: WordTokenizer, layer: int | None = None, batch_size: int = 64
    ) -> None:
        self.n_layers = model.config.num_hidden_layers
        if layer is not None and not -self.n_layers - 1 <= layer <= self.n_layers:
            raise InputError(
                f"--aligner_layer {layer} does not exist; the model has the layers 0 (embeddings) to {self.n_layers}."
            )
        if word_tokenizer.word_pooling != "token":
            word_tokenizer = WordTokenizer(word_tokenizer.tokenizer, "avg", word_tokenizer.max_length)
        self.model = model
        self.word_tokenizer = word_tokenizer
        self.layer = layer
        self.batch_size = batch_size
        self._collator = AlignmentCollator(word_tokenizer.tokenizer.pad_token_id or 0)

    def learn(self, source: Sentences, english: Sentences) -> None:
        """Choose a layer, if none was given."""
        if self.layer is None:
            self.layer = self.most_links(source, english)

    def score(self, source: Sentences, english: Sentences) -> list[ScoredLinks]:
        """The links of every pair and their cosines; they depend on the pair only, once the layer is known."""
        linked: list[ScoredLinks] = [{} for _ in source]
        for rows, [links] in self._batches(
            source, english, range(len(source)), [self._chosen(source, english)], _link
        ):
            _sort_in(linked, rows, *links)
        return linked

    def score_with_similarities(
        self, source: Sentences, english: Sentences
    ) -> tuple[list[ScoredLinks], list[np.ndarray]]:
        """`score`, and the cosines of all words of every pair: [source words, English words], nan for words without vector."""
        linked: list[ScoredLinks] = [{} for _ in source]
        cosines = [np.full((len(s), len(e)), np.nan, np.float32) for s, e in zip(source, english)]
        layer = self._chosen(source, english)
        for rows, [(links, matrices)] in self._batches(source, english, range(len(source)), [layer], _link_and_keep):
            _sort_in(linked, rows, *links)
            for row, matrix in zip(rows, matrices.numpy()):
                known = matrix[: len(source[row]), : len(english[row])]
                cosines[row][: known.shape[0], : known.shape[1]] = known
        return linked, cosines

    def _chosen(self, source: Sentences, english: Sentences) -> int:
        return self.most_links(source, english) if self.layer is None else self.layer

    def most_links(self, source: Sentences, english: Sentences) -> int:
        """The layer that links most words, judged on pairs spread evenly over the corpus.

        Of equal ones the layer closest to two thirds of the way up, which is the 8th of 12 in the paper.
        """
        chosen = range(0, len(source), -(-len(source) // self._PROBE_PAIRS) or 1)
        n_links = np.zeros(self.n_layers + 1, np.int64)
        for _, links in self._batches(source, english, chosen, range(self.n_layers + 1), _link):
            n_links += [len(cosines) for _, cosines in links]
        layer = max(range(self.n_layers + 1), key=lambda k: (n_links[k], -abs(3 * k - 2 * self.n_layers)))
        n_words = sum(min(len(source[row]), len(english[row])) for row in chosen)
        share = n_links[layer] / max(n_words, 1)
        logger.info(
            f"Linking words by layer {layer}: {share:.0%} of the words of {len(chosen)} pairs (links by layer: "
            f"{n_links.tolist()})"
        )
        if n_words and share < self._FEW_LINKS:
            logger.warning(
                f"The encoder links only {share:.0%} of the words; of a language that it reads well it links 70 to 90 %. Links of "
                "--aligner statistical, or of a word list, can gain far more here (docs/options.md)."
            )
        return layer

    def _batches(
        self, source: Sentences, english: Sentences, rows: Sequence[int], layers: Sequence[int], found: Find[T]
    ) -> Iterator[tuple[list[int], list[T]]]:
        """Batches of pairs: their positions in the corpus and, for every layer, what `found` makes of the cosines."""
        n_words = [len(source[row]) + len(english[row]) for row in rows]
        with (
            in_evaluation_mode(self.model),
            only_layers_below(self.model, layers) as wanted,
            progress(description="Linking", total=sum(n_words), unit="words", leave=False) as bar,
            torch.no_grad(),
        ):
            for begin in range(0, len(rows), pool_size := self.batch_size * self._BATCHES_IN_POOL):
                pool = rows[begin : begin + pool_size]
                encoded = self._encode([source[row] for row in pool], [english[row] for row in pool])
                # Pairs of similar length need little padding.
                n_tokens = [max(len(pair["source_input_ids"]), len(pair["english_input_ids"])) for pair in encoded]
                order = sorted(range(len(pool)), key=n_tokens.__getitem__, reverse=True)
                for first in range(0, len(pool), self.batch_size):
                    part = order[first : first + self.batch_size]
                    yield [pool[k] for k in part], self._compare([encoded[k] for k in part], wanted, found)
                    bar.update(sum(n_words[begin + k] for k in part))

    def _encode(self, source: list[list[str]], english: list[list[str]]) -> list[dict[str, list[int]]]:
        """Rows for `AlignmentCollator`, without links; `…_words` are the positions of their words, -1 for none."""
        pairs: list[dict[str, list[int]]] = [
            {"links": [], "source_spelling": [], "english_spelling": []} for _ in source
        ]
        for side, sentences in (("source", source), ("english", english)):
            tokens = self.word_tokenizer(sentences)
            for row, (pair, sentence) in enumerate(zip(pairs, sentences)):
                pair[f"{side}_input_ids"] = tokens["input_ids"][row]
                pair[f"{side}_word_ids"] = tokens["word_ids"][row]
                pair[f"{side}_words"] = [k if 0 <= k < len(sentence) else -1 for k in tokens["words"][row]]
        return pairs

    def _compare(self, pairs: list[dict[str, list[int]]], layers: Sequence[int], found: Find[T]) -> list[T]:
        """What `found` makes of the cosines of a batch at every layer."""
        batch = {name: tensor.to(self.model.device) for name, tensor in self._collator(pairs).items()}
        (source, has_source), (english, has_english) = (
            _by_sentence(word_vectors(self.model, batch, side, layers), [pair[f"{side}_words"] for pair in pairs])
            for side in ("source", "english")
        )
        # (In half precision many cosines would be equal, and other words nearest.)
        with torch.autocast(self.model.device.type, enabled=False):
            cosines = [s.float() @ e.float().transpose(1, 2) for s, e in zip(source, english)]
        return [found(of_layer, has_source, has_english) for of_layer in cosines]


def _link(
    similarity: torch.Tensor, has_source: torch.Tensor, has_english: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The links of a batch, as those of `mutual_argmax`, and their cosines [links]; on the CPU."""
    links = mutual_argmax(similarity, has_source, has_english)
    return links, similarity.cpu()[tuple(links)]


def _link_and_keep(
    similarity: torch.Tensor, has_source: torch.Tensor, has_english: torch.Tensor
) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """`_link`, and the cosines [batch, source words, English words], nan for words that do not exist; on the CPU."""
    exists = has_source.unsqueeze(2) & has_english.unsqueeze(1)
    kept = similarity.masked_fill(~exists, float("nan")).cpu()
    return _link(similarity, has_source, has_english), kept


def _sort_in(linked: list[ScoredLinks], rows: list[int], links: torch.Tensor, cosines: torch.Tensor) -> None:
    """Add the links of a batch to those of the corpus; `rows` are the positions of its pairs there."""
    for row, i, j, cosine in zip(*links.tolist(), cosines.tolist()):
        linked[rows[row]][i, j] = cosine


def _by_sentence(vectors: list[torch.Tensor], words: list[list[int]]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Unit vectors [batch, words, dimensions] at every layer, and which of them exist [batch, words].

    `vectors` are [words of the batch, dimensions]; `words` are their positions in every sentence, -1 for none.
    """
    position = np.fromiter(chain.from_iterable(words), np.int64)
    sentence = np.repeat(np.arange(len(words)), [len(positions) for positions in words])
    chosen, n_words = np.flatnonzero(position >= 0), 1 + int(position.max(initial=0))
    index = torch.from_numpy(np.stack([chosen, sentence[chosen], position[chosen]])).to(vectors[0].device)
    chosen, sentence, position = index
    present = index.new_zeros(len(words), n_words, dtype=torch.bool)
    present[sentence, position] = True
    padded = []
    for layer_vectors in vectors:
        rectangle = layer_vectors.new_zeros(*present.shape, layer_vectors.shape[-1])
        rectangle[sentence, position] = F.normalize(layer_vectors[chosen], dim=-1)
        padded.append(rectangle)
    return padded, present


def mutual_argmax(similarity: torch.Tensor, source: torch.Tensor, english: torch.Tensor) -> torch.Tensor:
    """Words that are each other's most similar one, by `similarity` [batch, source words, English words].

    `source` and `english` [batch, words] say which words exist. Returns [3, links] on the CPU: pair, source word,
    English word, sorted.
    """
    similarity = similarity.masked_fill(~(source.unsqueeze(2) & english.unsqueeze(1)), float("-inf"))
    nearest_english, nearest_source = similarity.argmax(2), similarity.argmax(1)
    here = torch.arange(source.shape[1], device=source.device)
    mutual = source & english.gather(1, nearest_english) & (nearest_source.gather(1, nearest_english) == here)
    pair, i = mutual.nonzero(as_tuple=True)
    return torch.stack([pair, i, nearest_english[pair, i]]).cpu()
