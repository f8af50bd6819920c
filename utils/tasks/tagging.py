"""Classification of the words of a sentence: reading, features, predicted tags."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Features, List, Value

from utils.alignment.words import WordTokenizer
from utils.core.errors import InputError
from utils.core.tables import Rows, read_lines
from utils.tasks.examples import LanguageData, identity_of


# The loss ignores this label: of all tokens of a word but the first, and of special tokens.
IGNORED = -100


def tagged_features(column: str) -> Features:
    """The columns of an example: `id`, `tokens` (words) and the column of tags."""
    return Features({"id": Value("string"), "tokens": List(Value("string")), column: List(Value("string"))})


def read_tagged(
    row: Mapping[str, Any], where: str, column: str, labels: Sequence[str] | None = None, bio: bool = False
) -> dict[str, Any]:
    """An example of a row of the source: `id`, `tokens` and the column of tags.

    Raises:
        InputError: for a missing column, lists of different lengths, or a tag that is not among `labels` (if given) or,
            with `bio`, not B-TYPE, I-TYPE or O.
    """
    for name in ("tokens", column):
        if not isinstance(row.get(name), list) or not all(isinstance(one, str) for one in row[name]):
            raise InputError(f"{where} has {row.get(name)!r} in column {name}; it needs a list of texts.")
    tokens, tags = row["tokens"], row[column]
    if len(tokens) != len(tags):
        raise InputError(f"{where} has {len(tokens)} tokens and {len(tags)} tags; every token needs one.")
    if bio and (other := [tag for tag in tags if not re.fullmatch("O|[BI]-.+", tag)]):
        raise InputError(f"{where} has the tag {other[0]!r}; tags are B-TYPE, I-TYPE and O (BIO): convert them.")
    if unknown := [tag for tag in tags if labels and tag not in labels]:
        raise InputError(f"{where} has the tag {unknown[0]}, which is none of {', '.join(labels or ())}; correct it.")
    return {**identity_of(row), "tokens": tokens, column: tags}


def read_conllu(path: str) -> Rows:
    """The sentences of a CoNLL-U file, with `tokens`, `pos_tags` (UPOS) and, where there is one, `id`.

    Format: https://universaldependencies.org/format.html. Multiword tokens (`3-4`) and empty nodes (`5.1`) are skipped:
    the words are those of the treebank's syntax. A line without UPOS raises `InputError`.
    """
    sentence: dict[str, Any] = {"tokens": [], "pos_tags": []}
    begin = 1
    for number, line in (*read_lines(path), (0, "")):
        fields = line.split("\t")
        if not line.strip():
            if sentence["tokens"]:
                yield f"The sentence at line {begin} of {path}", sentence
            sentence, begin = {"tokens": [], "pos_tags": []}, number + 1
        elif line.startswith("#"):
            key, _, value = line[1:].partition("=")
            if key.strip() == "sent_id":
                sentence["id"] = value.strip()
        elif len(fields) < 4 or not fields[0].replace("-", "").replace(".", "").isdigit():
            raise InputError(
                f"Line {number} of {path} is not CoNLL-U (ID, FORM, LEMMA, UPOS between tabs); correct it."
            )
        elif fields[0].isdigit():
            sentence["tokens"].append(fields[1])
            sentence["pos_tags"].append(fields[3])


def encode_tagged(
    batch: Mapping[str, list],
    positions: Sequence[int],
    column: str,
    word_tokenizer: WordTokenizer,
    label2id: Mapping[str, int],
) -> dict[str, list]:
    """One row per example. The first token of a word has its label, and its position in the sentence in `word`."""
    encoded = word_tokenizer(batch["tokens"])
    rows: dict[str, list] = {"input_ids": encoded["input_ids"], "labels": [], "word": [], "example": list(positions)}
    for word_ids, words, tags in zip(encoded["word_ids"], encoded["words"], batch[column]):
        # (Special tokens count as words too, with numbers outside of the sentence.)
        word = [words[k] if k >= 0 and 0 <= words[k] < len(tags) else IGNORED for k in word_ids]
        rows["word"].append(word)
        rows["labels"].append([label2id[tags[k]] if k != IGNORED else IGNORED for k in word])
    return rows


def predicted_tags(
    data: LanguageData, logits: np.ndarray, labels: Sequence[str], column: str, missing: str
) -> list[dict[str, Any]]:
    """The tag of every word.

    Args:
        data: examples and rows of a set.
        logits: [rows, longest row, classes].
        labels: names of the classes.
        column: the column of tags.
        missing: tag of a word that the model has not seen: beyond the length limit, or without tokens.

    Returns:
        Records with `id`, `gold` and `prediction` (tags), and `score` (mean probability of the predicted tags).
    """
    probabilities, predicted = torch.from_numpy(logits).softmax(dim=-1).max(dim=-1)
    records: list[dict[str, Any]] = [{}] * len(data.examples)
    for row, chances, classes in zip(data.rows, probabilities.numpy(), predicted.numpy()):
        example = data.examples[row["example"]]
        word, tags = np.asarray(row["word"]), [missing] * len(example["tokens"])
        first = np.flatnonzero(word != IGNORED)
        for token in first:
            tags[word[token]] = labels[classes[token]]
        certainty = float(chances[first].mean()) if len(first) else 0.0
        records[row["example"]] = {
            "id": example["id"], "gold": example[column], "prediction": tags, "score": round(certainty, 6),
        }  # fmt: skip
    return records
