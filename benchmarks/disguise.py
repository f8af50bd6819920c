"""A language made of English: the same words as tokens of their own, whose embeddings are disturbed copies; and the text.

    add_disguised_rows(encoder, special, disturbance=0.5, seed=0)
    rows = in_disguise(rows, "input_ids", special, n_rows)

K et al. (ICLR 2020) shift the ids of English so that no token is shared; so do Dufter and Schütze (EMNLP 2020).
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from utils.alignment.words import split_on_punctuation
from utils.core.errors import InputError
from utils.core.files import json_text
from utils.core.tables import read_lines


EMBEDDED = Path(__file__).resolve().parent.parent / "data"
HELD_OUT = 50  # sentences to measure word retrieval
MOST = 20_000  # sentences that are read


# --- The language ------------------------------------------------------------------------------------------------


def add_disguised_rows(encoder: PreTrainedModel, special: Collection[int], disturbance: float, seed: int) -> None:
    """Double the embedding table of V rows: row V + k is a disturbed copy of row k.

    It is mixed with the row of another token, around the mean of all, so that norms and spread stay those of real rows and
    `disturbance` is the other row's share of the variance. `special` tokens have no copy.
    """
    n_rows = encoder.config.vocab_size
    encoder.resize_token_embeddings(2 * n_rows, mean_resizing=False)
    table = encoder.get_input_embeddings().weight.detach()
    ordinary = np.setdiff1d(np.arange(n_rows), list(special))
    others = np.random.default_rng(seed).permutation(ordinary)
    center = table[ordinary].mean(dim=0)
    own, other = table[ordinary] - center, table[others] - center
    table[n_rows + torch.from_numpy(ordinary)] = center + (1 - disturbance) ** 0.5 * own + disturbance**0.5 * other


def in_disguise(rows: Dataset, column: str, special: Collection[int], n_rows: int) -> Dataset:
    """The rows with the token ids in a column shifted by `n_rows`, except those of special tokens."""

    def shift(batch: Mapping[str, list]) -> dict[str, list]:
        return {column: [[k if k in special else k + n_rows for k in ids] for ids in batch[column]]}

    return rows.map(shift, batched=True, load_from_cache_file=False)


def new_order(n: int, window: int, random: np.random.Generator) -> list[int]:
    """A random order of n things: none is more than `window` places from its own; -1: any order.

    Noise is added to the positions, and they are sorted: Lample et al. (ICLR 2018), section 2.3.
    """
    if window < 0:
        return random.permutation(n).tolist()
    return np.argsort(np.arange(n) + random.uniform(0, window + 1, n) * (window > 0), kind="stable").tolist()


def linked_pair(words: Sequence[str], window: int, wrong_links: float, random: np.random.Generator) -> dict[str, list]:
    """A pair for `encode_pairs`: the words as source, in a `new_order`, and as English, and links to the same word.

    A share `wrong_links` of the links lead to another position instead. In a short sentence it is met on average only, since
    links change places in a cycle of two or more; a single word has no wrong link.
    """
    order = new_order(len(words), window, random)
    target = np.array(order, int)
    wrong = random.permutation(len(words))[: _how_many(wrong_links * len(words), len(words), random)]
    target[wrong] = target[np.roll(wrong, 1)]
    links = [[i, int(j)] for i, j in enumerate(target)]
    return {"source": [words[j] for j in order], "english": list(words), "links": links}


def _how_many(wanted: float, n: int, random: np.random.Generator) -> int:
    """A number of wrong links among n: none, or two to n; in the mean as many as are wanted."""
    # (What is whole and possible is not drawn, so that nothing else is drawn differently.)
    if wanted != int(wanted) or wanted == 1:
        low = 0 if wanted < 2 else int(wanted)
        high = 2 if wanted < 2 else low + 1
        wanted = low + (high - low) * (random.random() < (wanted - low) / (high - low))
    return min(int(wanted), n) if n > 1 else 0


def reordered(row: Mapping[str, Any], tags: str, window: int, random: np.random.Generator) -> dict[str, list]:
    """An example whose words are shuffled; an entity moves as a whole."""
    units: list[list[int]] = []
    for k, tag in enumerate(row[tags]):
        if units and tag.startswith("I-"):
            units[-1].append(k)
        else:
            units.append([k])
    order = [k for unit in new_order(len(units), window, random) for k in units[unit]]
    return {name: [row[name][k] for k in order] for name in ("tokens", tags)}


# --- English text --------------------------------------------------------------------------------------------------------


@dataclass
class Text:
    """English sentences (words), others to measure word retrieval, and a task's examples: rows with `tokens` and tags."""

    sentences: list[list[str]]
    held_out: list[list[str]]
    train: list[dict[str, Any]]
    test: list[dict[str, Any]]

    @classmethod
    def read(cls, folder: Path, task: str, n_test: int) -> "Text":
        """Read a folder laid out as `--data_dir` of benchmarks/controlled_language.py says."""
        columns = [row["en"] for path in sorted(folder.glob("parallel/*.jsonl*")) for row in rows_of(path)]
        sentences = [split_on_punctuation(text)[:60] for text in list(dict.fromkeys(columns))[:MOST]]
        train, test = (
            [row for path in _files(folder, task, split) for row in rows_of(path)] for split in ("train", "test")
        )
        if len(sentences) <= HELD_OUT or not train or not test:
            raise InputError(f"--data_dir {folder} lacks parallel/*.jsonl or data of {task}; see --help.")
        return cls(sentences[HELD_OUT:], sentences[:HELD_OUT], train, test[:n_test])

    def fingerprint(self) -> str:
        """Changes with the content."""
        return sha256(json_text(asdict(self)).encode()).hexdigest()[:16]


def _files(folder: Path, task: str, split: str) -> list[Path]:
    """The files of a split; among the few embedded examples, those for validation are used as test data too."""
    splits = [split, "validation"] if folder == EMBEDDED and split == "test" else [split]
    names = [name for one in splits for name in (f"{task}/en/{one}.jsonl*", f"{task}/{one}.en.jsonl*")]
    return [path for name in names for path in sorted(folder.glob(name))]


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file with a JSON object per line."""
    return (json.loads(line) for _, line in read_lines(str(path)))
