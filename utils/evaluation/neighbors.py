"""Nearest neighbors: the candidate that is nearest to each query, and the rank of the right one."""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

from utils.core.errors import InputError, look_up
from utils.core.progress import progress


logger = logging.getLogger(__name__)

# CSLS compares with the mean similarity to this many neighbors (Conneau et al., ICLR 2018).
_NEIGHBORS = 10
# Vectors that lie less far apart are equal but for rounding; those of good encoders are 0.001 to 1 apart.
_COLLAPSED = 1e-6


@dataclass
class Retrieval:
    """What N queries found.

    The rank of the right candidate is the number of candidates at least as near, itself included: 1 if it is the single
    nearest. Among equally near candidates it ranks last, so that a collapsed encoder, whose vectors are all equal, gets
    no credit.
    """

    nearest: torch.Tensor  # [N], index of the nearest candidate; of several equally near, the first
    rank: torch.Tensor  # [N], of the right candidate
    score: (
        torch.Tensor
    )  # [N], similarity of the nearest, higher is nearer: (centered) cosine, negative L2 distance, CSLS
    gold: torch.Tensor  # [N], index of the right candidate
    query_spread: float | None = None  # `vector_spread` of the queries, if it was computed

    @property
    def accuracy(self) -> float:
        """Share of queries whose nearest candidate is the right one, 0 to 1."""
        return (self.nearest == self.gold).cpu().double().mean().item()

    @property
    def mrr(self) -> float:
        """Mean reciprocal rank of the right candidate, 0 to 1."""
        return self.rank.cpu().double().reciprocal().mean().item()

    @property
    def share_found(self) -> float:
        """Number of different candidates that are the nearest of some query, divided by N; low under hubness."""
        return len(self.nearest.unique()) / max(1, len(self.nearest))

    def warn_if_collapsed(self, where: str) -> None:
        """Log a warning if all queries are (nearly) equal, or all have the same nearest candidate: results are at chance."""
        spread = self.query_spread if self.query_spread is not None else 1.0
        if len(self.nearest) > 1 and (spread < _COLLAPSED or len(self.nearest.unique()) == 1):
            logger.warning(
                f"{where}: the vectors have collapsed ({len(self.nearest)} queries), and the results are at chance."
            )

    def rows(self) -> Iterator[dict[str, Any]]:
        """For every query its number `id`, and `gold`, `prediction`, `score`, `rank`."""
        columns = {"gold": self.gold, "prediction": self.nearest, "score": self.score, "rank": self.rank}
        for i, values in enumerate(zip(*(column.tolist() for column in columns.values()))):
            yield {"id": i, **dict(zip(columns, values))}


@dataclass(frozen=True)
class _Space:
    """How one matrix product gives the similarities of N queries and M candidates: scale · q'·c' + bias(c) + offset(q)."""

    # Make q' and c', fp32, of vectors [any, dimensions]: block by block, so that all vectors are never copied.
    prepare_queries: Callable[[torch.Tensor], torch.Tensor]
    prepare_candidates: Callable[[torch.Tensor], torch.Tensor]
    scale: float
    bias: torch.Tensor  # [M]
    offset: torch.Tensor  # [N]; has no influence on which candidate is nearer
    squared: bool = False  # whether the similarity is a negative squared distance


def _normalize(vectors: torch.Tensor) -> torch.Tensor:
    return F.normalize(vectors.float(), dim=1)


def _cosine(queries: torch.Tensor, candidates: torch.Tensor, block_size: int) -> _Space:
    zeros = torch.zeros(max(len(queries), len(candidates)), device=queries.device)
    return _Space(_normalize, _normalize, 1, zeros[: len(candidates)], zeros[: len(queries)])


def _centered(queries: torch.Tensor, candidates: torch.Tensor, block_size: int) -> _Space:
    """The cosine after the mean of each side is taken away: what all sentences of a language share (Libovický et al., 2020)."""

    def around_mean(side: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        mean = side.mean(dim=0, dtype=torch.float32)
        return lambda vectors: _normalize(vectors.float() - mean)

    cosine = _cosine(queries, candidates, block_size)
    return replace(cosine, prepare_queries=around_mean(queries), prepare_candidates=around_mean(candidates))


def _csls(queries: torch.Tensor, candidates: torch.Tensor, block_size: int) -> _Space:
    """2 cos(q, c) - mean cosine of q to its 10 nearest candidates - mean cosine of c to its 10 nearest queries."""
    of_queries = torch.full((len(queries), min(_NEIGHBORS, len(candidates))), -math.inf, device=queries.device)
    of_candidates = torch.full((len(candidates), min(_NEIGHBORS, len(queries))), -math.inf, device=queries.device)
    for rows in progress(list(slices(len(queries), block_size)), "Measuring hubness", leave=False):
        query = _normalize(queries[rows])
        for columns in slices(len(candidates), block_size):
            products = query @ _normalize(candidates[columns]).T
            _keep_largest(of_queries[rows], products)
            _keep_largest(of_candidates[columns], products.T.contiguous())
    return _Space(_normalize, _normalize, 2, -of_candidates.mean(dim=1), -of_queries.mean(dim=1))


def _keep_largest(largest: torch.Tensor, new: torch.Tensor) -> None:
    """Merge new numbers [N, any] into the k largest so far [N, k], which are in descending order."""
    # Not `>`: nan must stay visible.
    rows = (~(new.amax(dim=1) <= largest[:, -1])).nonzero().squeeze(1)
    largest[rows] = torch.cat([largest[rows], new[rows]], dim=1).topk(largest.shape[1], dim=1).values


def _l2(queries: torch.Tensor, candidates: torch.Tensor, block_size: int) -> _Space:
    """-|q - c|² = 2 q·c - |c|² - |q|². Moving the origin to the center keeps distances, and loses fewer digits."""
    center = candidates.mean(dim=0, dtype=torch.float32)

    def prepare(vectors: torch.Tensor) -> torch.Tensor:
        return vectors.float() - center

    def negative_squares(vectors: torch.Tensor) -> torch.Tensor:
        return -torch.cat([prepare(block).square().sum(dim=1) for block in vectors.split(block_size)])

    return _Space(prepare, prepare, 2, negative_squares(candidates), negative_squares(queries), squared=True)


RETRIEVAL_DISTANCES = {"cosine": _cosine, "l2": _l2, "csls": _csls, "centered": _centered}


def retrieve(
    queries: torch.Tensor,
    candidates: torch.Tensor,
    distance: str = "cosine",
    block_size: int | None = None,
    gold: torch.Tensor | None = None,
) -> Retrieval:
    """Find the nearest candidate of every query: exactly, on the tensors' device, in blocks of bounded memory.

    Two candidates count as equally near if their scores differ by no more than rounding can explain, for the last
    digits of a product depend on its place in a matrix. Where vectors contain nan, the right candidate ranks last.

    Args:
        queries: [N, dimensions].
        candidates: [M, dimensions].
        distance: a name in `RETRIEVAL_DISTANCES` (else an `InputError`); `csls` is the cosine corrected for hubness,
            `centered` the cosine without the mean of the queries and that of the candidates.
        block_size: queries and candidates compared at once; by default chosen for the device. Memory is a few times
            4 bytes times its square, and some numbers for each vector.
        gold: [N], index of the right candidate of every query; by default candidate i is right for query i.
    """
    measure = look_up(RETRIEVAL_DISTANCES, distance, "The distance")
    gold = torch.arange(len(queries), device=queries.device) if gold is None else gold.to(queries.device)
    if not len(queries):
        return Retrieval(gold, gold, gold.float(), gold)
    block_size = block_size or default_block_size(queries.device)
    space = measure(queries, candidates, block_size)
    # A sum of d rounded products has an error of about sqrt(d) times the rounding of one of them.
    rounding = math.sqrt(queries.shape[1]) * torch.finfo(torch.float32).eps
    best = torch.full(gold.shape, -math.inf, device=gold.device)
    nearest, farther = torch.zeros_like(gold), torch.zeros_like(gold)
    for rows in progress(list(slices(len(queries), block_size)), "Finding nearest neighbors", leave=False):
        query, right = space.prepare_queries(queries[rows]), space.prepare_candidates(candidates[gold[rows]])
        own_score = space.scale * (query * right).sum(dim=1) + space.bias[gold[rows]]
        # (scale · q·c is at most this sum of squares times scale / 2.)
        tolerance = rounding * space.scale / 2 * (query.square().sum(dim=1) + right.square().sum(dim=1))
        for columns in slices(len(candidates), block_size):
            candidate = space.prepare_candidates(candidates[columns])
            scores = torch.addmm(space.bias[columns], query, candidate.T, alpha=space.scale)
            # One score of the right candidate everywhere: rank 1 and being the nearest are the same.
            inside = (gold[rows] >= columns.start) & (gold[rows] < columns.stop)
            scores[inside, gold[rows][inside] - columns.start] = own_score[inside]
            # Where the maximum is costs more than what it is, and soon few rows have a new one.
            block_best = scores.amax(dim=1)
            improved = (block_best > best[rows] + tolerance).nonzero().squeeze(1)
            best[rows][improved] = block_best[improved]
            as_near = scores[improved] >= (block_best - tolerance)[improved, None]
            nearest[rows][improved] = as_near.byte().argmax(dim=1) + columns.start
            # In place, because summing a Boolean matrix takes half as long as computing the scores.
            farther[rows] += scores.lt_((own_score - tolerance)[:, None]).sum(dim=1).long()
    score = best + space.offset
    if space.squared:
        score = -(-score).clamp(min=0).sqrt()
    return Retrieval(nearest, len(candidates) - farther, score, gold)


def vector_spread(vectors: torch.Tensor, distance: str = "cosine") -> float:
    """How far vectors [N, dimensions], N > 0, lie apart, over all N² pairs.

    For `l2` the root mean square of the L2 distances, for other distances the mean of 1 - cosine (without centering, which
    would make collapsed vectors look spread).
    """
    total, squares = torch.zeros(vectors.shape[1], dtype=torch.float64), 0.0
    for block in vectors.split(default_block_size(vectors.device)):
        block = block.cpu().double()  # (some accelerators have no double precision)
        block = block if distance == "l2" else F.normalize(block, dim=1)
        total += block.sum(dim=0)
        squares += block.square().sum().item()
    center = (total / len(vectors)).square().sum().item()
    if distance == "l2":
        return math.sqrt(max(0.0, 2 * (squares / len(vectors) - center)))
    return 1 - center


def default_block_size(device: torch.device) -> int:
    """Number of vectors compared at once: their scores should stay in a CPU's cache, or keep a GPU busy."""
    return 1024 if device.type == "cpu" else 8192


def slices(n: int, size: int) -> Iterator[slice]:
    """0 to n in steps of `size`; `InputError` if that is less than 1."""
    if size < 1:
        raise InputError(f"A batch size of {size} is too small; use at least 1.")
    return (slice(begin, min(begin + size, n)) for begin in range(0, n, size))
