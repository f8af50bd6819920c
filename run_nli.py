#!/usr/bin/env python
"""Natural language inference: fine-tune in English, evaluate in other languages without labelled data of theirs.

    accelerate launch run_nli.py --model aligned-mbert-hi --do_train --do_eval --eval_languages en hi --output_dir nli-hi

Does a premise entail a hypothesis, contradict it, or neither? Trained on English MultiNLI and evaluated on XNLI by
default, with the settings of Efimov et al. (ECIR 2023). With --continual the alignment loss is kept beside the task
loss, so that fine-tuning does not undo what `run_align.py` has done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from datasets import Dataset, Features, Value
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding

from utils.core.arguments import arg
from utils.core.errors import InputError, run_script
from utils.tasks.examples import TaskDataArguments, TaskReader, identity_of, text_in
from utils.tasks.fine_tuning import FineTuning, FineTuningArguments
from utils.tasks.sentence_pairs import encode_sentence_pairs, score


FEATURES = Features({name: Value("string") for name in ("id", "premise", "hypothesis", "label")})
# As XNLI, MultiNLI and SNLI number them.
LABELS = ("entailment", "neutral", "contradiction")


@dataclass
class NliDataArguments(TaskDataArguments):
    """Pairs of sentences with the columns `premise`, `hypothesis` and `label` (a name, or 0, 1, 2 as in XNLI)."""

    dataset_name: str | None = arg(
        "facebook/xnli", help="Training data: a data set on the Hub or in a local folder, such as data/nli."
    )
    max_seq_length: int | None = arg(
        None, help="Cut sentence pairs after this many tokens. Default: 128.", hyperparameter=True
    )


@dataclass
class NliTrainingArguments(FineTuningArguments):
    """The settings of the paper."""

    learning_rate: float = arg(5e-5, help="Peak learning rate; falls linearly to 0.")
    num_train_epochs: float = arg(2, help="Passes over the training data.")


def main() -> None:
    # --- Arguments ---
    run = FineTuning.from_command_line("nli", NliDataArguments, NliTrainingArguments, __doc__)

    # --- Data ---
    examples, labels = run.read(TaskReader(run.data, FEATURES, read_pair, **run.reading), name_labels)

    # --- Model ---
    model, tokenizer = run.load_model(AutoModelForSequenceClassification, labels)
    max_length = run.length_limit(128, model, tokenizer)
    rows = run.encoded(
        examples, encode_sentence_pairs, tokenizer=tokenizer, max_length=max_length, label2id=model.config.label2id
    )

    # --- Train ---
    trainer = run.trainer(model, tokenizer, rows, DataCollatorWithPadding(tokenizer), partial(score, labels=labels))
    run.train(trainer)

    # --- Evaluate, in every language ---
    run.evaluate(trainer, rows)

    # --- Share ---
    run.share(trainer, examples)


def read_pair(row: Mapping[str, Any], where: str, labels: Sequence[str] | None = None) -> dict[str, str]:
    """An example of a row; its label is one of `labels`, if they are known already."""
    texts = {name: text_in(row, name, where) for name in ("premise", "hypothesis")}
    label = row.get("label")
    if isinstance(label, int) and 0 <= label < len(LABELS):
        label = LABELS[label]
    if not isinstance(label, str) or (labels and label not in labels):
        known = ", ".join(labels or LABELS)
        raise InputError(f"{where} has the label {label!r}, which is none of {known}; correct it, or leave it out.")
    return {**identity_of(row), **texts, "label": label}


def name_labels(examples: Dataset) -> list[str]:
    """The labels of the training data, in the order of XNLI if they are XNLI's."""
    found = set(examples.unique("label"))
    return list(LABELS) if found <= set(LABELS) else sorted(found)


if __name__ == "__main__":
    run_script(main)
