"""Retrieval of translations: which candidate is nearest, and how many are nearer than the right one."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F


DISTANCES = ("cosine", "l2", "csls")

# CSLS compares with the mean similarity to this many neighbours (Conneau et al., ICLR 2018).
_NEIGHBOURS = 10


@dataclass
class Retrieval:
    """What N queries found; candidate i is the right one for query i.

    Attributes:
        nearest: [N], the index of the nearest candidate (the first of several equally near).
        rank: [N], 1 + the number of candidates that are nearer than the right one.
        score: [N], similarity of the nearest one: cosine, negative squared L2 distance, or CSLS.
    """

    nearest: torch.Tensor
    rank: torch.Tensor
    score: torch.Tensor

    @property
    def accuracy(self) -> float:
        """How often the right candidate is the nearest one."""
        return (self.nearest == torch.arange(len(self.nearest), device=self.nearest.device)).double().mean().item()

    @property
    def mrr(self) -> float:
        """Mean reciprocal rank of the right candidate."""
        return self.rank.double().reciprocal().mean().item()


def retrieve(
    queries: torch.Tensor, candidates: torch.Tensor, distance: str = "cosine", block_size: int = 2048
) -> Retrieval:
    """Let every query find its nearest candidate, exactly, in blocks of bounded memory.

    Args:
        queries: [N, dimensions].
        candidates: [M, dimensions], M at least N; candidate i is the right one for query i.
        distance: `cosine`, `l2`, or `csls` (cosine, made fair to candidates that are near to everything).
        block_size: queries and candidates that are compared at once.
    """
    similarities = _Similarities(queries, candidates, distance, block_size)
    parts = []
    for begin in range(0, len(queries), block_size):
        rows = slice(begin, min(begin + block_size, len(queries)))
        right = torch.arange(rows.start, rows.stop, device=queries.device)
        right_score = similarities.of_pairs(rows)
        best = torch.full_like(right_score, float("-inf"))
        nearest = torch.zeros_like(right)
        nearer = torch.zeros_like(right)
        for first, scores in similarities.blocks(rows):
            # The right pair's own score, computed alone, may differ in the last digit from the one in the block.
            inside = (right >= first) & (right < first + scores.shape[1])
            scores[inside, right[inside] - first] = right_score[inside]
            block_best, block_nearest = scores.max(dim=1)
            improved = block_best > best
            nearest = torch.where(improved, block_nearest + first, nearest)
            best = torch.where(improved, block_best, best)
            nearer += (scores > right_score[:, None]).sum(dim=1)
        parts.append((nearest, nearer + 1, best))
    if not parts:
        empty = torch.zeros(0, dtype=torch.long)
        return Retrieval(empty, empty, empty.float())
    return Retrieval(*(torch.cat(part) for part in zip(*parts)))


class _Similarities:
    """Scores of queries against candidates, higher is nearer, a block at a time."""

    def __init__(self, queries: torch.Tensor, candidates: torch.Tensor, distance: str, block_size: int) -> None:
        self.block_size = block_size
        self.queries, self.candidates = queries.float(), candidates.float()
        # score = factor · query·candidate - a term of the query - a term of the candidate
        self.factor = 2.0 if distance in ("l2", "csls") else 1.0
        self.query_terms, self.candidate_terms = (self.queries.new_zeros(len(x)) for x in (queries, candidates))
        if distance == "l2":  # -|q - c|² = 2 q·c - |q|² - |c|²
            self.query_terms, self.candidate_terms = (x.square().sum(1) for x in (self.queries, self.candidates))
            return
        self.queries, self.candidates = F.normalize(self.queries, dim=1), F.normalize(self.candidates, dim=1)
        if distance == "csls":
            self.query_terms = _mean_of_neighbours(self.queries, self.candidates, block_size)
            self.candidate_terms = _mean_of_neighbours(self.candidates, self.queries, block_size)

    def blocks(self, rows: slice) -> Iterator[tuple[int, torch.Tensor]]:
        """For some queries: the first candidate of a block, and the scores [queries, candidates of the block]."""
        for first in range(0, len(self.candidates), self.block_size):
            columns = slice(first, first + self.block_size)
            scores = self.factor * (self.queries[rows] @ self.candidates[columns].T)
            yield first, scores - self.query_terms[rows, None] - self.candidate_terms[None, columns]

    def of_pairs(self, rows: slice) -> torch.Tensor:
        """The scores of some queries with their own candidates."""
        products = (self.queries[rows] * self.candidates[rows]).sum(dim=1)
        return self.factor * products - self.query_terms[rows] - self.candidate_terms[rows]


def _mean_of_neighbours(points: torch.Tensor, others: torch.Tensor, block_size: int) -> torch.Tensor:
    """The mean cosine of every point with its nearest others (r_T and r_S of CSLS)."""
    k = min(_NEIGHBOURS, len(others))
    means = []
    for block in points.split(block_size):
        best = torch.cat(
            [(block @ part.T).topk(min(k, len(part)), dim=1).values for part in others.split(block_size)], dim=1
        )
        means.append(best.topk(k, dim=1).values.mean(dim=1))
    return torch.cat(means)
