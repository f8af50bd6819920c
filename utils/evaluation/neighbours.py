"""Nearest neighbours: which candidate is nearest to a query, and how many are nearer than the right one."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F

from utils.core.errors import InputError


SENTENCE_DISTANCES = ("cosine", "l2", "csls")
SEARCHES = ("exact", "faiss")
# CSLS compares with the mean similarity to this many neighbours (Conneau et al., ICLR 2018).
_NEIGHBOURS = 10
# How many of the nearest candidates faiss finds, beyond which ranks are not told apart.
_FAISS_NEIGHBOURS = 100


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
    for rows in slices(len(queries), block_size):
        query, own = space.queries[rows], right[rows]
        own_score = space.scale * (query * space.candidates[kept[own]]).sum(dim=1) + bias[own]
        for columns in slices(len(kept), block_size):
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
    for rows in slices(len(queries), block_size):
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


def vector_spread(vectors: torch.Tensor, distance: str = "cosine") -> float:
    """How far vectors [N, dimensions] lie apart from each other.

    Args:
        vectors: one or more.
        distance: `l2`: the root mean square of all their N² distances; otherwise the mean of 1 - cosine over all N² pairs.
    """
    total, squares = torch.zeros(vectors.shape[1], dtype=torch.float64), 0.0
    for rows in slices(len(vectors), default_block_size(vectors.device)):
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


def slices(n: int, size: int) -> Iterator[slice]:
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
    for rows in slices(len(vectors), block_size):
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
        for rows in slices(len(given), block_size):
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
        return (self[rows] for rows in slices(len(self), block_size))


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
    for rows in slices(len(queries), block_size):
        query = queries[rows]
        for columns in slices(len(candidates), block_size):
            products = query @ candidates[columns].T
            _keep_largest(of_queries[rows], products)
            _keep_largest(of_candidates[columns], products.T.contiguous())
    return of_queries.mean(dim=1), of_candidates.mean(dim=1)


def _keep_largest(largest: torch.Tensor, new: torch.Tensor) -> None:
    """Let new numbers [N, any] take their places among the k largest so far [N, k], which are in descending order."""
    # (Not `>`: what is no number has to stay visible.)
    rows = (~(new.amax(dim=1) <= largest[:, -1])).nonzero().squeeze(1)
    largest[rows] = torch.cat([largest[rows], new[rows]], dim=1).topk(largest.shape[1], dim=1).values
