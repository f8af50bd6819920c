#!/usr/bin/env python
"""Named entity recognition: fine-tune in English, evaluate in other languages without labeled data in those languages.

    accelerate launch run_ner.py --model aligned-mbert-hi --do_train --do_eval --eval_languages en hi --output_dir ner-hi

Which words of a sentence name persons, places, organizations? Trained and evaluated on WikiANN by default, with the
settings of Efimov et al. (ECIR 2023).
"""

from utils.core.kept_help import show_kept_help


if __name__ == "__main__":
    show_kept_help(__file__)  # (the imports below take seconds)

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import DataCollatorForTokenClassification

from utils.alignment.words import WordTokenizer
from utils.core.arguments import arg
from utils.core.errors import run_script
from utils.tasks.arguments import FineTuningArguments, parse_task_arguments
from utils.tasks.continual import continual_alignment
from utils.tasks.data_arguments import TaskDataArguments
from utils.tasks.examples import LanguageData, Measure, encode_examples
from utils.tasks.reader import TaskReader, read_examples
from utils.tasks.steps import known_labels, length_limit, load_model, publish_task_model, train_and_evaluate
from utils.tasks.tagging import encode_tagged, predicted_tags, read_tagged, readers_of_tags, tagged_features
from utils.tasks.zero_shot_trainer import ZeroShotTrainer


TAGS = "ner_tags"
# Of WikiANN, and of its copy in XTREME.
CONFIGS = ("{language}", "PAN-X.{language}")
read_sentence = partial(read_tagged, column=TAGS, bio=True)


@dataclass
class NerDataArguments(TaskDataArguments):
    """Sentences with the columns `tokens` (words) and `ner_tags` (B-PER, I-PER, …, O)."""

    dataset_name: str | None = arg("unimelb-nlp/wikiann", help="Training data on the Hub or in a folder (data/ner).")
    train_file: str | None = arg(
        None,
        help="Training data in a file: .tsv, .txt, .conll, .conllu or .iob2 with a word and its tag per line; or .jsonl, .parquet.",
    )


@dataclass
class NerTrainingArguments(FineTuningArguments):
    """Training, with the paper's settings."""

    learning_rate: float = arg(2e-5, help="Peak learning rate; falls linearly to 0.")
    num_train_epochs: float = arg(3, help="Passes over the training data.")


def main() -> None:
    # --- Arguments ---
    args = parse_task_arguments("ner", NerDataArguments, NerTrainingArguments, description=__doc__)
    data, training = args.data, args.training

    # --- Examples, in the training language and in all others ---
    reader = TaskReader(
        data,
        tagged_features(TAGS),
        read_sentence,
        CONFIGS,
        readers_of_tags(TAGS),
        texts=("tokens",),
        **args.reader_options,
    )
    examples, labels = read_examples(reader, training, lambda rows: known_labels(args, rows and name_labels(rows)))

    # --- Model ---
    model, tokenizer = load_model(args, labels)
    words = WordTokenizer(tokenizer, "start", length_limit(data.max_seq_length, 128, tokenizer, model))

    # --- Features ---
    encode = partial(encode_tagged, column=TAGS, word_tokenizer=words, label2id=model.config.label2id)
    rows = encode_examples(examples, encode, training, args.num_proc)

    # --- Train, and evaluate in every language ---
    alignment, tracker, facts = continual_alignment(args, model, tokenizer)
    collator, judge = (
        DataCollatorForTokenClassification(tokenizer),
        partial(score, labels=labels, measure=args.task.measure),
    )
    trainer = ZeroShotTrainer(model, training, rows, tokenizer, collator, judge, alignment, tracker)
    facts |= train_and_evaluate(trainer, rows, args)

    # --- Share ---
    publish_task_model(trainer, args, examples, facts)


def name_labels(examples: Dataset) -> list[str]:
    """O, and both tags of every type of entity in the training data."""
    types = {tag[2:] for tags in examples[TAGS] for tag in tags if tag != "O"}
    return ["O", *(f"{begin}-{name}" for name in sorted(types) for begin in "BI")]


def score(
    name: str, data: LanguageData, best: Sequence[np.ndarray], labels: Sequence[str], measure: Measure
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The tag of every word, and the metrics of whole entities. Entities with words beyond the length limit are missed.

    `best` and the records are those of `predicted_tags`.
    """
    records = predicted_tags(data, best, labels, TAGS, missing="O")
    return records, measure(*([record[key] for record in records] for key in ("prediction", "gold")))


if __name__ == "__main__":
    run_script(main)
