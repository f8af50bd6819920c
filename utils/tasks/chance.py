"""Whether a model has learned its task: its score beside that of the best baseline that ignores the input."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from utils.evaluation.answers import answer_scores
from utils.evaluation.entities import entities


if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Chance:
    """A strategy that does not look at the input.

    Attributes:
        strategy: what it does, for messages.
        score: its value of the task's selection metric on some examples, between 0 and 1.
    """

    strategy: str
    score: Callable[["Dataset"], float]


def _most_frequent(examples: "Dataset", column: str) -> float:
    """The share of the most frequent value, in a column of values or of lists of them."""
    counts = Counter(one for value in examples[column] for one in (value if isinstance(value, list) else [value]))
    return max(counts.values()) / counts.total()


def _every_word(examples: "Dataset") -> float:
    """F1 of every word as an entity of its own, of the most frequent type among those of one word."""
    found = [entity for tags in examples["ner_tags"] for entity in entities(tags)]
    single = Counter(entity_type for entity_type, first, last in found if first == last)
    return 2 * max(single.values(), default=0) / (sum(map(len, examples["ner_tags"])) + len(found))


def _blind_answer(examples: "Dataset") -> float:
    """F1 of the whole context as the answer to every question, or of no answer to any, whichever is better."""
    f1 = [
        [answer_scores(answer, example["answers"]["text"], version_2=True)[1] for answer in (example["context"], "")]
        for example in examples.select_columns(["context", "answers"])
    ]
    return float(np.mean(f1, axis=0).max())


FREQUENT_LABEL = Chance("the most frequent label for every example", partial(_most_frequent, column="label"))
FREQUENT_TAG = Chance("the most frequent tag for every word", partial(_most_frequent, column="pos_tags"))
EVERY_WORD = Chance("calling every word an entity of the most frequent type", _every_word)
BLIND_ANSWER = Chance("answering with the whole context, or never", _blind_answer)
