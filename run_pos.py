#!/usr/bin/env python
"""Part-of-speech tagging: fine-tune in English, evaluate zero-shot in other languages.

    accelerate launch run_pos.py --model aligned-mbert-hi --do_train --do_eval --eval_languages en hi --output_dir pos-hi

Trained and evaluated on Universal Dependencies as in XTREME (Hu et al., ICML 2020), with its settings; also on CoNLL-U
files. The metric is the accuracy over words.
"""

from utils.core.kept_help import show_kept_help


if __name__ == "__main__":
    show_kept_help(__file__)  # (the imports below take seconds)

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from transformers import DataCollatorForTokenClassification
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from utils.alignment.words import WordTokenizer
from utils.core.arguments import arg
from utils.core.errors import run_script
from utils.tasks.arguments import FineTuningArguments, parse_task_arguments
from utils.tasks.continual import continual_alignment
from utils.tasks.data_arguments import TaskDataArguments
from utils.tasks.examples import LanguageData, Measure, encode_examples
from utils.tasks.reader import TaskReader, read_examples
from utils.tasks.steps import known_labels, length_limit, load_model, publish_task_model, train_and_evaluate
from utils.tasks.tagging import (
    encode_tagged,
    predicted_tags,
    read_conllu,
    read_tagged,
    readers_of_tags,
    tagged_features,
)
from utils.tasks.zero_shot_trainer import ZeroShotTrainer


TAGS = "pos_tags"
# Of Universal Dependencies (UPOS), in the order of XTREME.
LABELS = ("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM",
          "VERB", "X")  # fmt: skip
CONFIGS = ("udpos.{language_name}", "{language}")
# What XTREME calls the languages.
LANGUAGE_NAMES = {code: name.title() for code, name in LANGUAGES.items()} | {"af": "Afrikans"}


@dataclass
class PosDataArguments(TaskDataArguments):
    """Sentences with the columns `tokens` (words) and `pos_tags` (UPOS)."""

    dataset_name: str | None = arg("google/xtreme", help="Training data on the Hub or in a folder (data/pos).")
    train_file: str | None = arg(
        None,
        help="Training data in a file: .conllu; .tsv, .txt or .conll with a word and its tag per line; or .jsonl, .parquet.",
    )


@dataclass
class PosTrainingArguments(FineTuningArguments):
    """Training, with the settings of XTREME."""

    learning_rate: float = arg(2e-5, help="Peak learning rate; falls linearly to 0.")
    num_train_epochs: float = arg(10, help="Passes over the training data.")


def main() -> None:
    # --- Arguments ---
    args = parse_task_arguments("pos", PosDataArguments, PosTrainingArguments, description=__doc__)
    data, training = args.data, args.training

    # --- Examples, in the training language and in all others ---
    labels = known_labels(args, list(LABELS) if training.do_train else None)
    reader = TaskReader(
        data,
        tagged_features(TAGS),
        partial(read_tagged, column=TAGS, labels=labels),
        CONFIGS,
        readers={**readers_of_tags(TAGS), ".conllu": read_conllu},
        language_names=LANGUAGE_NAMES,
        texts=("tokens",),
        **args.reader_options,
    )
    examples, _ = read_examples(reader, training)

    # --- Model ---
    model, tokenizer = load_model(args, labels)
    words = WordTokenizer(tokenizer, "start", length_limit(data.max_seq_length, 128, tokenizer, model))

    # --- Features ---
    encode = partial(encode_tagged, column=TAGS, word_tokenizer=words, label2id=model.config.label2id)
    rows = encode_examples(examples, encode, training, args.num_proc)

    # --- Train, and evaluate in every language ---
    alignment, tracker, facts = continual_alignment(args, model, tokenizer)
    judge, collator = (
        partial(score, labels=labels, measure=args.task.measure),
        DataCollatorForTokenClassification(tokenizer),
    )
    trainer = ZeroShotTrainer(model, training, rows, tokenizer, collator, judge, alignment, tracker)
    facts |= train_and_evaluate(trainer, rows, args)

    # --- Share ---
    publish_task_model(trainer, args, examples, facts)


def score(
    name: str, data: LanguageData, best: Sequence[np.ndarray], labels: Sequence[str], measure: Measure
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The tag of every word, and the metrics over all words. Words beyond the length limit are wrong.

    `best` and the records are those of `predicted_tags`.
    """
    records = predicted_tags(data, best, labels, TAGS, missing="_")
    return records, measure(*([tag for record in records for tag in record[key]] for key in ("prediction", "gold")))


if __name__ == "__main__":
    run_script(main)
