"""Retrieval of translations: which candidate is nearest to a query, and how many are nearer than the right one.

Three parts, which `run_xsr.py` puts together: pairs of sentences, sentence vectors, nearest neighbours. The last one
serves words as well.
"""

import hashlib
import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from accelerate import PartialState
from accelerate.utils import gather_object
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from utils.alignment import hidden_states_at
from utils.bitext import load_sentences
from utils.encoders import load_config
from utils.errors import InputError
from utils.tables import read_lines
from utils.trainable import only_layers_below
from utils.word_pooling import encoder_max_length


DISTANCES = ("cosine", "l2", "csls")
POOLINGS = ("mean", "cls")
SEARCHES = ("exact", "faiss")

# CSLS compares with the mean similarity to this many neighbours (Conneau et al., ICLR 2018).
_NEIGHBOURS = 10

# How many of the nearest candidates faiss finds, beyond which ranks are not told apart.
_FAISS_NEIGHBOURS = 100

# As many batches are tokenised ahead, sorted by length, and fetched from the device at once.
_BATCHES_OF_CHUNK = 64
# Vectors are looked at for numbers that are none.
_CHECKED_AT_ONCE = 65_536

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# Tatoeba names languages by three letters: the 36 of XTREME (Artetxe and Schwenk, TACL 2019; Hu et al., ICML 2020).
_THREE_LETTERS = {
    "af": "afr", "ar": "ara", "bg": "bul", "bn": "ben", "de": "deu", "el": "ell", "es": "spa", "et": "est",
    "eu": "eus", "fa": "pes", "fi": "fin", "fr": "fra", "he": "heb", "hi": "hin", "hu": "hun", "id": "ind",
    "it": "ita", "ja": "jpn", "jv": "jav", "ka": "kat", "kk": "kaz", "ko": "kor", "ml": "mal", "mr": "mar",
    "nl": "nld", "pt": "por", "ru": "rus", "sw": "swh", "ta": "tam", "te": "tel", "th": "tha", "tl": "tgl",
    "tr": "tur", "ur": "urd", "vi": "vie", "zh": "cmn",
}  # fmt: skip
# What run_xsr.py calls the arguments about a data set.
_ARGUMENTS = {
    "config": "--dataset_config_name",
    "split": "--dataset_split",
    "source": "--source_column",
    "english": "--target_column",
}
_SIDES = ("source", "english")
# Configurations of google/xtreme, of mteb/tatoeba-bitext-mining, of data/xsr, of OPUS-100 and its like.
_CONFIGS = ("tatoeba.{code}", "{code}-eng", "{language}", "{language}-en", "en-{language}")


# --- Nearest neighbours ------------------------------------------------------------------------------------------


@dataclass
class Retrieval:
    """What N queries found.

    Attributes:
        nearest: [N], index of the nearest candidate, the first of several equally near.
        rank: [N], 1 + the number of candidates that are nearer than the right one.
        score: [N], similarity of the nearest one, higher is nearer: cosine, negative L2 distance, or CSLS.
        gold: [N], index of the right candidate.
        query_spread: how far the queries lie apart (see `spread`), if that was looked at.
    """

    nearest: torch.Tensor
    rank: torch.Tensor
    score: torch.Tensor
    gold: torch.Tensor
    query_spread: float | None = None

    @property
    def accuracy(self) -> float:
        """How often the right candidate is the nearest one, 0 to 1."""
        return (self.nearest == self.gold).cpu().double().mean().item()

    @property
    def mrr(self) -> float:
        """Mean reciprocal rank of the right candidate, 0 to 1."""
        return self.rank.cpu().double().reciprocal().mean().item()

    @property
    def share_found(self) -> float:
        """How many different candidates are the nearest of some query, 0 to 1: few, where a few hubs attract everything."""
        return len(self.nearest.unique()) / max(1, len(self.nearest))

    def rows(self) -> Iterator[dict[str, Any]]:
        """For every query its number `id`, and `gold`, `prediction`, `score`, `rank`."""
        columns = (self.gold, self.nearest, self.score, self.rank)
        for i, values in enumerate(zip(*(column.tolist() for column in columns))):
            yield {"id": i, **dict(zip(("gold", "prediction", "score", "rank"), values))}


def retrieve(
    queries: torch.Tensor,
    candidates: torch.Tensor,
    distance: str = "cosine",
    block_size: int | None = None,
    gold: torch.Tensor | None = None,
) -> Retrieval:
    """Let every query find its nearest candidate: exactly, on the tensors' device, in blocks of bounded memory.

    Candidates with the same vector (a sentence that occurs twice) are equally near, so none of them ranks before the
    others; as the nearest one counts the first. Where vectors are not numbers, the right candidate ranks last.

    Args:
        queries: [N, dimensions].
        candidates: [M, dimensions].
        distance: `cosine`, `l2`, or `csls`, which is the cosine made fair to candidates that are near to everything:
            2 cos(q, c) - mean cosine of q to its 10 nearest candidates - mean cosine of c to its 10 nearest queries.
        block_size: queries and candidates that are compared at once; by default what suits the device. Memory is a
            few times 4 bytes times its square, and some numbers for each vector, but no copy of all vectors.
        gold: [N], index of the right candidate for every query; by default candidate i is right for query i.
    """
    gold = torch.arange(len(queries), device=queries.device) if gold is None else gold.to(queries.device)
    if not len(queries):
        return Retrieval(gold, gold, gold.float(), gold)
    block_size = block_size or default_block_size(queries.device)
    kept, position, copies = _distinct(candidates, block_size)
    space = _Space.of(queries, candidates, distance, block_size)
    bias, right = space.bias[kept], position[gold]
    best = torch.full(gold.shape, -math.inf, device=gold.device)
    nearest, not_nearer = torch.zeros_like(gold), torch.zeros_like(gold)
    for rows in _slices(len(queries), block_size):
        query, own = space.queries[rows], right[rows]
        own_score = space.scale * (query * space.candidates[kept[own]]).sum(dim=1) + bias[own]
        for columns in _slices(len(kept), block_size):
            candidate = space.candidates[columns if len(kept) == len(candidates) else kept[columns]]
            scores = torch.addmm(bias[columns], query, candidate.T, alpha=space.scale)
            # The last digit of a score depends on how it was computed: the right candidate must not beat itself.
            inside = (own >= columns.start) & (own < columns.stop)
            scores[inside, own[inside] - columns.start] = own_score[inside]
            # Where the maximum is costs more than what it is, and soon few rows have a new one.
            block_best = scores.amax(dim=1)
            improved = (block_best > best[rows]).nonzero().squeeze(1)
            best[rows][improved] = block_best[improved]
            nearest[rows][improved] = scores[improved].argmax(dim=1) + columns.start
            # In place, and as a product, because summing a Boolean matrix takes half as long as computing the scores.
            not_nearer[rows] += (scores.le_(own_score[:, None]) @ copies[columns]).long()
    rank = 1 + len(position) - not_nearer
    score = best + space.offset
    if distance == "l2":
        score = -(-score).clamp(min=0).sqrt()
    return Retrieval(kept[nearest], rank.clamp(max=len(position)), score, gold)


def retrieve_with_faiss(
    queries: torch.Tensor, candidates: torch.Tensor, distance: str = "cosine", gold: torch.Tensor | None = None
) -> Retrieval:
    """The same by faiss, on the CPU, with a copy of the candidates in its index: the nearest candidates are exact.

    A right candidate that is not among the 100 nearest ranks right behind them.

    Args:
        queries: [N, dimensions], N > 0, numbers.
        candidates, distance, gold: as for `retrieve`.

    Raises:
        InputError: if faiss is not installed.
    """
    faiss = require_faiss()
    gold = torch.arange(len(queries)) if gold is None else gold.cpu()
    queries, candidates = queries.cpu(), candidates.cpu()
    block_size = default_block_size(queries.device)
    kept, position, copies = _distinct(candidates, block_size)
    space = _Space.of(queries, candidates, distance, block_size)
    index = faiss.IndexFlatIP(candidates.shape[1] + 1)  # b(c) is one more dimension, which is 1 in all queries
    for rows in kept.split(block_size):
        index.add(torch.cat([space.scale * space.candidates[rows], space.bias[rows, None]], dim=1).numpy())
    nearest, best, rank = torch.empty_like(gold), torch.empty(len(gold)), torch.empty_like(gold)
    for rows in _slices(len(queries), block_size):
        query = F.pad(space.queries[rows], (0, 1), value=1.0)
        scores, found = map(torch.from_numpy, index.search(query.numpy(), min(_FAISS_NEIGHBOURS, len(kept))))
        best[rows] = scores[:, 0]
        nearest[rows] = found.masked_fill(scores < scores[:, :1], len(kept)).amin(dim=1)
        own_score = scores.masked_fill(found != position[gold[rows], None], -math.inf).amax(dim=1, keepdim=True)
        rank[rows] = 1 + (copies[found] * (scores > own_score)).sum(dim=1).long()
    score = best + space.offset
    if distance == "l2":
        score = -(-score).clamp(min=0).sqrt()
    return Retrieval(kept[nearest], rank, score, gold)


def spread(vectors: torch.Tensor, distance: str = "cosine") -> float:
    """How far vectors [N, dimensions] lie apart from each other.

    Args:
        vectors: one or more.
        distance: `l2`: the root mean square of all their N² distances; otherwise the mean of 1 - cosine over all N² pairs.
    """
    total, squares = torch.zeros(vectors.shape[1], dtype=torch.float64), 0.0
    for rows in _slices(len(vectors), default_block_size(vectors.device)):
        block = vectors[rows].cpu().double()  # (some accelerators have no double precision)
        block = block if distance == "l2" else F.normalize(block, dim=1)
        total += block.sum(dim=0)
        squares += block.square().sum().item()
    centre = (total / len(vectors)).square().sum().item()
    if distance == "l2":
        return math.sqrt(max(0.0, 2 * (squares / len(vectors) - centre)))
    return 1 - centre


def require_faiss() -> ModuleType:
    """The module faiss.

    Raises:
        InputError: if it is not installed.
    """
    try:
        import faiss  # for this alone, so not a requirement of the scripts
    except ImportError as error:
        raise InputError("--search faiss needs a package that is not installed; run pip install faiss-cpu.") from error
    return faiss


def default_block_size(device: torch.device) -> int:
    """How many vectors are compared at once: their scores should stay in a CPU's cache, or keep a GPU busy."""
    return 1024 if device.type == "cpu" else 8192


def _slices(n: int, size: int) -> Iterator[slice]:
    """0 to n in steps."""
    return (slice(begin, min(begin + size, n)) for begin in range(0, n, size))


def _distinct(vectors: torch.Tensor, block_size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which of M vectors differ: the K first ones of their kind [K], the kind of each [M], how many there are [K].

    Equal vectors may get scores that differ in the last digit, from different places in a matrix product. Taken
    once, they are equal again.
    """
    # Sorting vectors takes several copies of them all, sorting a fingerprint of each takes next to nothing.
    _, kind, copies = _fingerprints(vectors, block_size).unique(return_inverse=True, return_counts=True)
    index, first = _first_of_kind(kind, len(copies))
    repeats = (first[kind] != index).nonzero().squeeze(1)
    if not all(torch.equal(vectors[rows], vectors[first[kind[rows]]]) for rows in repeats.split(block_size)):
        # Not numbers, which equal nothing; or, once in many years, two vectors with the same fingerprint.
        _, kind, copies = vectors.unique(dim=0, return_inverse=True, return_counts=True)
        _, first = _first_of_kind(kind, len(copies))
    kept, order = first.sort()
    return kept, order.argsort()[kind], copies[order].float()


def _first_of_kind(kind: torch.Tensor, n_kinds: int) -> tuple[torch.Tensor, torch.Tensor]:
    """0 to M - 1, and the first index of each kind, for M kinds [M]."""
    index = torch.arange(len(kind), device=kind.device)
    return index, torch.full_like(index[:n_kinds], len(kind)).scatter_reduce(0, kind, index, "amin")


def _fingerprints(vectors: torch.Tensor, block_size: int) -> torch.Tensor:
    """64 bits [M] for each vector, the same for equal ones: a random linear combination of their numbers' bits."""
    random = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**63), 2**63 - 1, (vectors.shape[1],), generator=random).to(vectors.device)
    # In one piece, since many small ones, made between large ones that are given back, leave the memory full of holes.
    prints = torch.empty(len(vectors), dtype=torch.int64, device=vectors.device)
    for rows in _slices(len(vectors), block_size):
        bits = (vectors[rows].float() + 0.0).view(torch.int32)  # -0.0, which equals 0.0, becomes it
        prints[rows] = (bits * factors).sum(dim=1)
    return prints


@dataclass
class _Vectors:
    """Vectors as inner products need them, centred or divided by their norms block by block: no copy of all is made.

    Attributes:
        given: [N, dimensions].
        centre: [dimensions], is subtracted.
        norm: [N, 1], is divided by.
    """

    given: torch.Tensor
    centre: torch.Tensor | None = None
    norm: torch.Tensor | None = None

    @classmethod
    def normalized(cls, given: torch.Tensor, block_size: int) -> "_Vectors":
        """All of length 1 (or 0)."""
        norms = torch.empty(len(given), 1, device=given.device)
        for rows in _slices(len(given), block_size):
            norms[rows] = given[rows].float().norm(dim=1, keepdim=True)
        return cls(given, norm=norms.clamp_(min=1e-12))

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, index: slice | torch.Tensor) -> torch.Tensor:
        """Some of the vectors, fp32."""
        vectors = self.given[index].float()
        if self.centre is not None:
            return vectors - self.centre
        return vectors / self.norm[index]

    def blocks(self, block_size: int) -> Iterator[torch.Tensor]:
        """All the vectors, fp32."""
        return (self[rows] for rows in _slices(len(self), block_size))


@dataclass
class _Space:
    """Vectors q', c' and numbers b(c), o(q), so that every similarity is scale · q'·c' + b(c) + o(q).

    o(q) changes no ranking, and the rest is a single matrix product.
    """

    queries: _Vectors
    candidates: _Vectors
    scale: float
    bias: torch.Tensor  # b, [M]
    offset: torch.Tensor  # o, [N]

    @classmethod
    def of(cls, queries: torch.Tensor, candidates: torch.Tensor, distance: str, block_size: int) -> "_Space":
        """The space of a distance."""
        if distance == "l2":  # -|q - c|² = 2 q·c - |c|² - |q|²
            # Near the origin this loses fewer digits, and distances stay as they are. Whole numbers stay whole.
            centre = candidates.mean(dim=0, dtype=torch.float32).round()
            sides = _Vectors(queries, centre), _Vectors(candidates, centre)
            offset, bias = (-_squared_norms(side, block_size) for side in sides)
            return cls(*sides, 2, bias, offset)
        sides = _Vectors.normalized(queries, block_size), _Vectors.normalized(candidates, block_size)
        if distance == "csls":
            offset, bias = (-mean for mean in _means_of_nearest(*sides, block_size))
            return cls(*sides, 2, bias, offset)
        bias, offset = (torch.zeros(len(side), device=queries.device) for side in (candidates, queries))
        return cls(*sides, 1, bias, offset)


def _squared_norms(vectors: _Vectors, block_size: int) -> torch.Tensor:
    return torch.cat([block.square().sum(dim=1) for block in vectors.blocks(block_size)])


def _means_of_nearest(queries: _Vectors, candidates: _Vectors, block_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean inner products of every query with its nearest candidates [N], of every candidate with queries [M]."""
    device = queries.given.device
    of_queries = torch.full((len(queries), min(_NEIGHBOURS, len(candidates))), -math.inf, device=device)
    of_candidates = torch.full((len(candidates), min(_NEIGHBOURS, len(queries))), -math.inf, device=device)
    for rows in _slices(len(queries), block_size):
        query = queries[rows]
        for columns in _slices(len(candidates), block_size):
            products = query @ candidates[columns].T
            _keep_largest(of_queries[rows], products)
            _keep_largest(of_candidates[columns], products.T.contiguous())
    return of_queries.mean(dim=1), of_candidates.mean(dim=1)


def _keep_largest(largest: torch.Tensor, new: torch.Tensor) -> None:
    """Let new numbers [N, any] take their places among the k largest so far [N, k], which are in descending order."""
    # (Not `>`: what is no number has to stay visible.)
    rows = (~(new.amax(dim=1) <= largest[:, -1])).nonzero().squeeze(1)
    largest[rows] = torch.cat([largest[rows], new[rows]], dim=1).topk(largest.shape[1], dim=1).values


# --- Sentence vectors --------------------------------------------------------------------------------------------


def encode_sentences(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sentences: Sequence[str],
    layers: Sequence[int],
    pooling: str = "mean",
    batch_size: int = 64,
    max_length: int | None = None,
    description: str | None = None,
) -> torch.Tensor:
    """The vectors of sentences at several layers, in one pass of the encoder, which is put into evaluation mode.

    A sentence that repeats is encoded once. Several processes (`accelerate launch`) share the work, and each gets
    the whole result.

    Args:
        model: an encoder, on the device that is to do the work.
        tokenizer: its tokenizer.
        sentences: N texts.
        layers: indices into `hidden_states`: 0 the embeddings, -1 the last layer.
        pooling: `mean` over all tokens, special ones included (Efimov et al., ECIR 2023), or `cls`, the first token.
        batch_size: sentences encoded at once per process.
        max_length: cut sentences after this many tokens; by default, what the encoder can take.
        description: what the progress bar says.

    Returns:
        [layers, N, dimensions], fp32, on the CPU, in the order of `sentences`.

    Raises:
        InputError: if `max_length` leaves no room or is more than the encoder takes, or if vectors are not numbers.
    """
    limit, special = encoder_max_length(tokenizer, model), tokenizer.num_special_tokens_to_add()
    if max_length is not None and not special < max_length <= limit:
        raise InputError(
            f"A maximum length of {max_length} tokens does not suit {model.name_or_path}; choose one from {special + 1} "
            f"to {limit} (--max_seq_length)."
        )
    state = PartialState()
    distinct = list(dict.fromkeys(sentences))
    # Like lengths together, for little padding; the longest first, so that memory runs out at once or never.
    by_length = sorted(range(len(distinct)), key=lambda i: -len(distinct[i]))
    share = by_length[state.process_index :: state.num_processes]
    chunks = [share[rows] for rows in _slices(len(share), batch_size * _BATCHES_OF_CHUNK)]
    progress = logging.tqdm(total=len(share), desc=description, unit="sentence", disable=not state.is_main_process)

    def tokenize(chunk: list[int]) -> list[tuple[int, list[int]]]:
        texts, unused = [distinct[i] for i in chunk], {"return_attention_mask": False, "return_token_type_ids": False}
        ids = tokenizer(texts, truncation=True, max_length=max_length or limit, verbose=False, **unused)["input_ids"]
        return sorted(zip(chunk, ids), key=lambda sentence: -len(sentence[1]))

    model.eval()
    vectors = torch.zeros(len(layers), len(distinct), model.config.hidden_size)
    with only_layers_below(model, layers) as needed:
        for chunk in _one_ahead(tokenize, chunks):
            parts = []
            for rows in _slices(len(chunk), batch_size):
                ids = [sentence for _, sentence in chunk[rows]]
                parts.append(_encode_batch(model, ids, needed, pooling, tokenizer.pad_token_id or 0))
                progress.update(len(ids))
            # This waits for the device, so it is not done for every batch.
            vectors[:, [i for i, _ in chunk]] = torch.cat(parts, dim=1).cpu()
    progress.close()
    if state.num_processes > 1:
        for others, theirs in gather_object([(share, vectors[:, share])]):
            vectors[:, others] = theirs
    if not all(block.isfinite().all() for block in vectors.flatten(0, 1).split(_CHECKED_AT_ONCE)):
        raise InputError(f"{model.name_or_path} gives vectors that are not numbers (nan or inf); was it trained well?")
    if len(distinct) == len(sentences):
        return vectors
    row_of = {sentence: row for row, sentence in enumerate(distinct)}
    return vectors[:, [row_of[sentence] for sentence in sentences]]


def _one_ahead(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """`map`, but the next result is computed in a thread while the caller is busy with this one."""
    with ThreadPoolExecutor(1) as worker:
        pending = deque()
        for item in items:
            pending.append(worker.submit(function, item))
            if len(pending) > 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


@torch.inference_mode()
def _encode_batch(
    model: PreTrainedModel, ids: Sequence[Sequence[int]], layers: Sequence[int], pooling: str, pad_token_id: int
) -> torch.Tensor:
    """Vectors [layers, batch, dimensions] of tokenised sentences, fp32, on the model's device, which is not waited for."""
    input_ids = pad_sequence([torch.tensor(s) for s in ids], batch_first=True, padding_value=pad_token_id)
    lengths = _sent_to(torch.tensor([len(sentence) for sentence in ids]), model.device)
    mask = torch.arange(input_ids.shape[1], device=model.device) < lengths[:, None]
    states = hidden_states_at(model, _sent_to(input_ids, model.device), mask.long(), layers)
    if pooling == "cls":
        return torch.stack([state[:, 0].float() for state in states])
    # Sums over half-precision states lose digits, and padding may hold anything.
    sums = [state.float().masked_fill(~mask[..., None], 0).sum(dim=1) for state in states]
    return torch.stack(sums) / lengths[:, None]


def _sent_to(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on a device, without waiting for what the device is doing where that can be had."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def usual_layer(n_layers: int) -> int:
    """The layer that finds translations best as a rule: 8 of 12, and as far up in smaller and larger encoders."""
    return round(n_layers * 2 / 3)


def parse_layers(layers: str | Sequence[str | int] | None, n_layers: int) -> list[int]:
    """Read `8`, `0 4 8`, `-1` or `all` as indices into `hidden_states`, ascending and from 0; None is the usual one.

    Args:
        layers: the words of `--layers`.
        n_layers: layers of the encoder, one less than it has hidden states.

    Raises:
        InputError: for what is no layer of it.
    """
    words = layers.split() if isinstance(layers, str) else [w for value in layers or [] for w in str(value).split()]
    if words == ["all"]:
        return list(range(n_layers + 1))
    chosen = set() if words else {usual_layer(n_layers)}
    for word in words:
        try:
            layer = int(word)
        except ValueError:
            layer = math.inf
        if not -n_layers - 1 <= layer <= n_layers:
            raise InputError(
                f"--layers {word} is no layer of an encoder with {n_layers} layers; choose from 0 (the embeddings) to "
                f"{n_layers} (the last, also -1), or all."
            )
        chosen.add(layer % (n_layers + 1))
    return sorted(chosen)


def count_layers(model_name_or_path: str, **hub_options: Any) -> int:  # noqa: ANN401
    """How many layers an encoder has, by its config alone.

    Raises:
        InputError: if it has no config.
    """
    return load_config(model_name_or_path, **hub_options).num_hidden_layers


# --- Pairs of sentences ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SentencePairs:
    """Sentences of a language and their English translations: source[i] means the same as english[i].

    Attributes:
        language: code of the source language.
        source, english: the sentences.
        dataset: where they come from.
        split: which part of it; None for files.
    """

    language: str
    source: list[str]
    english: list[str]
    dataset: str
    split: str | None = None

    @property
    def directions(self) -> tuple[str, str]:
        """Names of both directions, the querying language first."""
        return f"{self.language}-en", f"en-{self.language}"

    @property
    def facts(self) -> dict[str, Any]:
        """What belongs beside every result."""
        return {"dataset": self.dataset, "split": self.split, "sentences": len(self.source)}

    @property
    def sha256(self) -> str:
        """By which two runs know that they used the same sentences."""
        return hashlib.sha256(json.dumps([self.source, self.english]).encode()).hexdigest()

    def first(self, n: int | None) -> "SentencePairs":
        """The first n pairs; all for None."""
        return replace(self, source=self.source[:n], english=self.english[:n])


def read_sentence_files(language: str, source_path: str, english_path: str) -> SentencePairs:
    """Read two text files, gzipped or not: line i of one translates line i of the other.

    Raises:
        InputError: naming the file, the line and the remedy.
    """
    sides = []
    for path in (source_path, english_path):
        if not os.path.isfile(path):
            raise InputError(f"There is no file {path}; check the path.")
        sides.append([_sentence(line, f"Line {number} of {path}") for number, line in read_lines(path)])
        if not sides[-1]:
            raise InputError(f"The file {path} is empty; give one with a sentence on every line.")
    if len(sides[0]) != len(sides[1]):
        raise InputError(
            f"{source_path} has {len(sides[0])} lines and {english_path} has {len(sides[1])}; line i of one must "
            "translate line i of the other."
        )
    return SentencePairs(language, *sides, dataset=f"{source_path} {english_path}")


def load_sentence_pairs(
    dataset_name: str,
    language: str,
    config_name: str | None = None,
    split: str | None = None,
    source_column: str | None = None,
    english_column: str | None = None,
    **hub_options: Any,  # noqa: ANN401
) -> SentencePairs:
    """Read the pairs of a language from a data set on the Hub or in a local folder.

    Args:
        dataset_name: Hub id or folder.
        language: code of the source language.
        config_name: configuration, in which `{language}` stands for the language; by default the first that fits of
            `tatoeba.hin` (google/xtreme), `hin-eng` (mteb/tatoeba-bitext-mining), `hi`, `hi-en`, `en-hi`.
        split: by default `test`, or else `validation`, or the only one there is.
        source_column, english_column: by default the usual names (`utils.bitext`).
        hub_options: `cache_dir`, `token`.

    Raises:
        InputError: naming what the data set offers instead.
    """
    code = _THREE_LETTERS.get(language, language)
    configs = [config_name] if config_name else [name.replace("{code}", code) for name in _CONFIGS]
    splits = [split] if split else ["test", "validation", "train"]
    columns = (source_column, english_column)
    rows, config, split = load_sentences(dataset_name, language, configs, splits, columns, _ARGUMENTS, **hub_options)
    where = f"the data set {dataset_name} ({config})"
    sides = ([_sentence(text, f"Row {n} of {where}") for n, text in enumerate(rows[side], 1)] for side in _SIDES)
    return SentencePairs(language, *sides, f"{dataset_name} {config}", split)


def _sentence(text: object, where: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{where} has no sentence; take it out, together with its translation.")
    return text


# --- Report ------------------------------------------------------------------------------------------------------


def retrieval_metrics(found: Mapping[str, Mapping[int, Retrieval]]) -> dict[str, float]:
    """`hi-en_layer8_accuracy`, `…_mrr`, `…_share_found`, 0 to 1, and `…_query_spread`, of every direction and layer."""
    metrics = {}
    for direction, by_layer in found.items():
        for layer, retrieval in by_layer.items():
            metrics[f"{direction}_layer{layer}_accuracy"] = retrieval.accuracy
            metrics[f"{direction}_layer{layer}_mrr"] = retrieval.mrr
            metrics[f"{direction}_layer{layer}_share_found"] = retrieval.share_found
            if retrieval.query_spread is not None and math.isfinite(retrieval.query_spread):
                metrics[f"{direction}_layer{layer}_query_spread"] = retrieval.query_spread
    return metrics


def accuracy_curves(
    found: Mapping[str, Mapping[str, Mapping[int, Retrieval]]],
) -> dict[str, dict[str, dict[int, float]]]:
    """From model → direction → layer to direction → model → layer → accuracy: a panel for each direction."""
    curves: dict[str, dict[str, dict[int, float]]] = {}
    for model, directions in found.items():
        for direction, by_layer in directions.items():
            curve = {layer: retrieval.accuracy for layer, retrieval in by_layer.items()}
            curves.setdefault(direction, {})[model] = curve
    return curves


def retrieval_table(found: Mapping[str, Mapping[str, Mapping[int, Retrieval]]], usual: Mapping[str, int]) -> str:
    """A table of 100 columns at most: a line per model and direction, three layers of each.

    Args:
        found: model → direction → layer → what was found.
        usual: the usual layer of each model. Of more than three layers, the most accurate one, the usual one and the
            last one are shown.
    """
    everything = [by_layer for directions in found.values() for by_layer in directions.values()]
    n_groups = min(3, max(map(len, everything)))
    choose = max(map(len, everything)) > 3
    width = min(28, max(map(len, found)))
    lines = [f"{'model':{width}}  direction" + "  layer acc. %   MRR" * n_groups]
    if choose:
        lines.insert(0, " " * (width + 11) + "".join(f"  {name:^18}" for name in ("most accurate", "usual", "last")))
    for model, directions in found.items():
        name = (
            model if len(model) <= width else f"{model[: width // 2]}…{model[len(model) - width + width // 2 + 1 :]}"
        )
        for direction, by_layer in directions.items():
            shown = list(by_layer)
            if choose:
                best = max(by_layer, key=lambda layer, by_layer=by_layer: by_layer[layer].accuracy)
                shown = [best, usual[model], shown[-1]]
            cells = [
                f"  {layer:5} {100 * by_layer[layer].accuracy:6.1f} {by_layer[layer].mrr:.3f}"
                if layer in by_layer
                else " " * 20
                for layer in shown
            ]
            lines.append(f"{name:{width}}  {direction:9}" + "".join(cells))
    return "\n".join(line.rstrip() for line in lines)
