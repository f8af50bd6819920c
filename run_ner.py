#!/usr/bin/env python
"""Named entity recognition: fine-tune in English, evaluate in other languages without labelled data of theirs.

    accelerate launch run_ner.py --model aligned-mbert-hi --do_train --do_eval --eval_languages en hi --output_dir ner-hi

Which words of a sentence name persons, places, organisations? Trained and evaluated on WikiANN by default, with the
settings of Efimov et al. (ECIR 2023). With --continual the alignment loss is kept beside the task loss, so that
fine-tuning does not undo what `run_align.py` has done.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from transformers import AutoModelForTokenClassification, DataCollatorForTokenClassification

from utils.alignment.words import WordTokenizer
from utils.core.arguments import arg
from utils.core.errors import InputError, run_script
from utils.evaluation.metrics import load_metric
from utils.tasks.examples import LanguageData, TaskDataArguments, TaskReader, identity_of
from utils.tasks.fine_tuning import FineTuning, FineTuningArguments


FEATURES = Features({"id": Value("string"), "tokens": List(Value("string")), "ner_tags": List(Value("string"))})
# Of WikiANN, and of its copy in XTREME.
CONFIGS = ("{language}", "PAN-X.{language}")
# What the loss passes over: all tokens of a word but the first, and the special ones.
IGNORED = -100


@dataclass
class NerDataArguments(TaskDataArguments):
    """Sentences with the columns `tokens` (words) and `ner_tags` (B-PER, I-PER, …, O)."""

    dataset_name: str | None = arg(
        "unimelb-nlp/wikiann", help="Training data: a data set on the Hub or in a local folder, such as data/ner."
    )
    max_seq_length: int | None = arg(
        None,
        help="Cut sentences after this many tokens; entities beyond count as missed. Default: 128.",
        hyperparameter=True,
    )


@dataclass
class NerTrainingArguments(FineTuningArguments):
    """The settings of the paper."""

    learning_rate: float = arg(2e-5, help="Peak learning rate; falls linearly to 0.")
    num_train_epochs: float = arg(3, help="Passes over the training data.")


def main() -> None:
    # --- Arguments ---
    run = FineTuning.from_command_line("ner", NerDataArguments, NerTrainingArguments, __doc__)

    # --- Data ---
    reader = TaskReader(run.data, FEATURES, read_sentence, CONFIGS, **run.reading)
    examples, labels = run.read(reader, name_labels)

    # --- Model ---
    model, tokenizer = run.load_model(AutoModelForTokenClassification, labels)
    words = WordTokenizer(tokenizer, "start", run.length_limit(128, model, tokenizer))
    rows = run.encoded(examples, encode, word_tokenizer=words, label2id=model.config.label2id)

    # --- Train ---
    trainer = run.trainer(
        model, tokenizer, rows, DataCollatorForTokenClassification(tokenizer), partial(score, labels=labels)
    )
    run.train(trainer)

    # --- Evaluate, in every language ---
    run.evaluate(trainer, rows)

    # --- Share ---
    run.share(trainer, examples)


def read_sentence(row: Mapping[str, Any], where: str, labels: Sequence[str] | None = None) -> dict[str, Any]:
    """An example of a row; its tags are BIO and among `labels`, if they are known already."""
    for column in ("tokens", "ner_tags"):
        if not isinstance(row.get(column), list) or not all(isinstance(one, str) for one in row[column]):
            raise InputError(
                f"{where} has {row.get(column)!r} in column {column}; it needs a list of words, or of tags."
            )
    tokens, tags = row["tokens"], row["ner_tags"]
    if len(tokens) != len(tags):
        raise InputError(f"{where} has {len(tokens)} tokens and {len(tags)} tags; every token needs one.")
    for tag in tags:
        if not re.fullmatch("O|[BI]-.+", tag):
            raise InputError(f"{where} has the tag {tag!r}; tags are B-TYPE, I-TYPE and O (BIO): convert them.")
        if labels and tag not in labels:
            raise InputError(f"{where} has the tag {tag}, which is none of {', '.join(labels)}; correct it.")
    return {**identity_of(row), "tokens": tokens, "ner_tags": tags}


def name_labels(examples: Dataset) -> list[str]:
    """O, and both tags of every type of entity in the training data."""
    types = {tag[2:] for tags in examples["ner_tags"] for tag in tags if tag != "O"}
    return ["O", *(f"{begin}-{name}" for name in sorted(types) for begin in "BI")]


def encode(
    batch: Mapping[str, list], positions: Sequence[int], word_tokenizer: WordTokenizer, label2id: Mapping[str, int]
) -> dict[str, list]:
    """One row per example. A word's first token has its label, and its position in the sentence in `word`."""
    encoded = word_tokenizer(batch["tokens"])
    rows: dict[str, list] = {"input_ids": encoded["input_ids"], "labels": [], "word": [], "example": list(positions)}
    for word_ids, words, tags in zip(encoded["word_ids"], encoded["words"], batch["ner_tags"]):
        # (Special tokens count as words too, numbered outside of the sentence.)
        word = [words[k] if k >= 0 and 0 <= words[k] < len(tags) else IGNORED for k in word_ids]
        rows["word"].append(word)
        rows["labels"].append([label2id[tags[k]] if k != IGNORED else IGNORED for k in word])
    return rows


def score(
    name: str, data: LanguageData, logits: np.ndarray, labels: Sequence[str]
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The tag of every word, and precision, recall and F1 of whole entities.

    A word that the model was not given, beyond the length limit or tokenised to nothing, gets the tag O: its entity is
    missed.

    Args:
        name: of the set.
        data: its examples and rows.
        logits: [rows, longest row, labels].
        labels: names of the classes.

    Returns:
        Records with `id`, `gold` and `prediction` (tags), and `score` (mean probability of the predicted tags); and
        `precision`, `recall`, `f1`, between 0 and 1.
    """
    probabilities, predicted = torch.from_numpy(logits).softmax(dim=-1).max(dim=-1)
    records: list[dict[str, Any]] = [{}] * len(data.examples)
    for row, chances, classes in zip(data.rows, probabilities.numpy(), predicted.numpy()):
        example = data.examples[row["example"]]
        word = np.asarray(row["word"])
        first = np.flatnonzero(word != IGNORED)
        tags = ["O"] * len(example["tokens"])
        for token in first:
            tags[word[token]] = labels[classes[token]]
        certainty = float(chances[first].mean()) if len(first) else 0.0
        records[row["example"]] = {
            "id": example["id"], "gold": example["ner_tags"], "prediction": tags, "score": round(certainty, 6),
        }  # fmt: skip
    gold, found = ([record[column] for record in records] for column in ("gold", "prediction"))
    measured = load_metric("seqeval").compute(predictions=found, references=gold)
    return records, {metric: measured[metric] for metric in ("precision", "recall", "f1")}


if __name__ == "__main__":
    run_script(main)
