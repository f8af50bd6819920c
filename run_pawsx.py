#!/usr/bin/env python
"""Paraphrase identification: fine-tune in English, evaluate zero-shot in other languages.

    accelerate launch run_pawsx.py --model aligned-mbert-es --do_train --do_eval --eval_languages en es --output_dir pawsx-es

Do two sentences, which share most of their words, mean the same? Trained and evaluated on PAWS-X (Yang et al., EMNLP
2019) as in XTREME (Hu et al., ICML 2020), with its settings.
"""

from utils.core.kept_help import show_kept_help


if __name__ == "__main__":
    show_kept_help(__file__)  # (the imports below take seconds)

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from datasets import Features, Value
from transformers import DataCollatorWithPadding

from utils.core.arguments import arg
from utils.core.errors import run_script
from utils.tasks.arguments import FineTuningArguments, parse_task_arguments
from utils.tasks.continual import continual_alignment
from utils.tasks.data_arguments import TaskDataArguments
from utils.tasks.examples import encode_examples
from utils.tasks.reader import TaskReader, read_examples
from utils.tasks.sentence_pairs import encode_sentence_pairs, read_sentence_pair, score
from utils.tasks.steps import known_labels, length_limit, load_model, publish_task_model, train_and_evaluate
from utils.tasks.zero_shot_trainer import ZeroShotTrainer


COLUMNS = ("sentence1", "sentence2")
FEATURES = Features({name: Value("string") for name in ("id", *COLUMNS, "label")})
CONFIGS = ("PAWS-X.{language}", "{language}")
# As numbered by PAWS.
LABELS = ("different", "paraphrase")


@dataclass
class PawsxDataArguments(TaskDataArguments):
    """Pairs of sentences with the columns `sentence1`, `sentence2` and `label` (1: they mean the same; 0: they do not)."""

    dataset_name: str | None = arg("google/xtreme", help="Training data: a data set on the Hub or in a local folder.")
    USUAL_LANGUAGES: ClassVar = ("de", "es", "fr", "ja", "ko", "zh")


@dataclass
class PawsxTrainingArguments(FineTuningArguments):
    """Training, with the settings of XTREME."""

    learning_rate: float = arg(2e-5, help="Peak learning rate; falls linearly to 0.")
    num_train_epochs: float = arg(5, help="Passes over the training data.")


def main() -> None:
    # --- Arguments ---
    args = parse_task_arguments("pawsx", PawsxDataArguments, PawsxTrainingArguments, description=__doc__)
    data, training = args.data, args.training

    # --- Examples, in the training language and in all others ---
    labels = known_labels(args, list(LABELS) if training.do_train else None)
    read = partial(read_sentence_pair, columns=COLUMNS, classes=LABELS, labels=labels)
    reader = TaskReader(data, FEATURES, read, CONFIGS, texts=COLUMNS, **args.reader_options)
    examples, _ = read_examples(reader, training)

    # --- Model ---
    model, tokenizer = load_model(args, labels)
    length = length_limit(data.max_seq_length, 128, tokenizer, model)

    # --- Features ---
    label2id = model.config.label2id
    encode = partial(encode_sentence_pairs, columns=COLUMNS, tokenizer=tokenizer, max_length=length, label2id=label2id)
    rows = encode_examples(examples, encode, training, args.num_proc)

    # --- Train, and evaluate in every language ---
    alignment, tracker, facts = continual_alignment(args, model, tokenizer)
    judge, collator = partial(score, labels=labels, measure=args.task.measure), DataCollatorWithPadding(tokenizer)
    trainer = ZeroShotTrainer(model, training, rows, tokenizer, collator, judge, alignment, tracker)
    facts |= train_and_evaluate(trainer, rows, args)

    # --- Share ---
    publish_task_model(trainer, args, examples, facts)


if __name__ == "__main__":
    run_script(main)
