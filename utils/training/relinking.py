"""Word links made anew during training, by the model under training."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset, concatenate_datasets

from utils.alignment.pairs import PairEncoder
from utils.core.errors import InputError
from utils.core.files import atomic_write
from utils.parallel.aligners.base import Links
from utils.parallel.aligners.registry import AlignerArguments, AlignerInputs, make_aligner
from utils.parallel.choosing import informative_links
from utils.parallel.linking import BATCH, scored_links


logger = logging.getLogger(__name__)

# The file of a checkpoint that has the links in use: those of an earlier step are not those of the checkpoint's model.
LINKS_FILE = "links.npz"
Batch = dict[str, torch.Tensor]


def check_realigning(every: int, links: AlignerArguments, trains: bool) -> None:
    """Raise `InputError` if `--realign_every` does not fit the other arguments."""
    if every and not trains:
        raise InputError("--realign_every has no effect if nothing learns from word links; leave it out.")
    if every and (links.links_file or links.aligner not in (None, "encoder")):
        source = "--links_file" if links.links_file else f"--aligner {links.aligner}"
        raise InputError(
            f"--realign_every links words with the encoder under training, not as {source} does; leave out one of the two."
        )


@dataclass
class Relinker:
    """Links the words of the training pairs anew every few optimizer steps, with the model as it is then.

    It does what `--aligner encoder` does before training, on the pairs that were chosen there: the layer is chosen anew if none
    is given, since training changes which one links best, and `informative_links` are kept. The links that result depend on
    the weights and the pairs alone. Pairs and batches stay the same ones in the same order; a pair that has lost all
    links brings only its special tokens and its English words (for the regularizer).

    Every process links a share of the pairs; then all have all links.
    """

    every: int  # optimizer steps
    pairs: Mapping[str, Dataset]  # by language, with columns `source` and `english`, in the order of the training rows
    encode: PairEncoder
    arguments: AlignerArguments

    def __post_init__(self) -> None:
        self._words = concatenate_datasets(
            [pairs.select_columns(["source", "english"]) for pairs in self.pairs.values()]
        )
        self.forget()

    def forget(self) -> None:
        """Return to the links with which training begins."""
        self._links, self._ends = np.zeros((0, 2), np.int32), np.zeros(0, np.int64)

    def identity(self) -> dict[str, Any]:
        """What it adds to the `run_identity` of checkpoints."""
        return {
            "realign_every": self.every,
            "aligner_layer": self.arguments.aligner_layer,
            "min_link_score": self.arguments.min_link_score,
        }

    def begin_step(self, n_steps: int, model: Any, n_processes: int = 1, process: int = 0) -> None:
        """Link the words anew if it is time, after `n_steps` optimizer steps."""
        if not n_steps or n_steps % self.every:
            return
        begin = time.perf_counter()
        links: list[Links] = []
        for pairs in self.pairs.values():
            first, last = (len(pairs) * k // n_processes for k in (process, process + 1))
            links += gather_object(self._linked(pairs, model, first, last))
        self._set(links)
        n_empty = sum(not pair for pair in links)
        logger.info(
            f"Words of {len(links):,} pairs linked anew after step {n_steps:,} in {time.perf_counter() - begin:.1f} s: "
            f"{len(self._links):,} links; {n_empty:,} pairs have none."
        )

    def _linked(self, pairs: Dataset, model: Any, begin: int, end: int) -> list[Links]:
        """The links of a range of pairs."""
        words = self.encode.word_tokenizer
        aligner = make_aligner("encoder", AlignerInputs(self.arguments, None, model, words))
        aligner.learn(pairs["source"], pairs["english"])
        links = []
        for first in range(begin, end, BATCH):
            part = pairs[first : min(first + BATCH, end)]
            source, english = part["source"], part["english"]
            found = scored_links(aligner, source, english, self.arguments.min_link_score)
            links += [informative_links(s, e, list(of_pair)) for s, e, of_pair in zip(source, english, found)]
        return links

    def _set(self, links: Sequence[Links]) -> None:
        self._ends = np.cumsum(np.fromiter(map(len, links), np.int64))
        numbers = np.fromiter(chain.from_iterable(chain.from_iterable(links)), np.int32)
        self._links = numbers.reshape(-1, 2)

    def _of_row(self, row: int) -> Links:
        begin = self._ends[row - 1] if row else 0
        return [(i, j) for i, j in self._links[begin : self._ends[row]].tolist()]

    def numbered(self, rows: Dataset) -> Dataset:
        """The training rows with a column `row`, by which the links of a batch are found."""
        return rows.add_column("row", range(len(rows)))  # type: ignore[arg-type]

    def relinked(self, batch: Batch, rows: Dataset, collate: Callable[[list[dict]], Batch]) -> Batch:
        """A batch of `numbered` rows with the links that are now in use."""
        if not len(self._ends):
            return batch
        numbers = batch["row"].tolist()
        linked = {**self._words[numbers], "links": list(map(self._of_row, numbers))}
        columns = {**rows[numbers], **self.encode(linked)}
        made = collate([dict(zip(columns, values)) for values in zip(*columns.values())])
        return {name: tensor.to(batch["row"].device) for name, tensor in made.items()}

    def save(self, checkpoint: str) -> None:
        """Write the links into a checkpoint's folder."""
        with atomic_write(Path(checkpoint, LINKS_FILE)) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, links=self._links, ends=self._ends)

    def load(self, checkpoint: str) -> None:
        """Read the links that `save` has written."""
        with np.load(Path(checkpoint, LINKS_FILE)) as saved:
            self._links, self._ends = saved["links"], saved["ends"]
