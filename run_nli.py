#!/usr/bin/env python
"""Natural language inference: fine-tune in English, evaluate zero-shot in other languages.

    accelerate launch run_nli.py --model aligned-mbert-hi --do_train --do_eval --eval_languages en hi --output_dir nli-hi

Does a premise entail a hypothesis, contradict it, or neither? Trained on English MultiNLI and evaluated on XNLI by
default, with the settings of Efimov et al. (ECIR 2023).
"""

from utils.core.kept_help import show_kept_help


if __name__ == "__main__":
    show_kept_help(__file__)  # (the imports below take seconds)

from dataclasses import dataclass
from functools import partial

from datasets import Features, Value
from transformers import DataCollatorWithPadding

from utils.core.arguments import arg
from utils.core.errors import run_script
from utils.tasks.arguments import FineTuningArguments, parse_task_arguments
from utils.tasks.continual import continual_alignment
from utils.tasks.data_arguments import TaskDataArguments
from utils.tasks.examples import encode_examples
from utils.tasks.reader import TaskReader, read_examples
from utils.tasks.sentence_pairs import encode_sentence_pairs, name_labels, read_sentence_pair, score
from utils.tasks.steps import known_labels, length_limit, load_model, publish_task_model, train_and_evaluate
from utils.tasks.zero_shot_trainer import ZeroShotTrainer


TEXTS = ("premise", "hypothesis")
FEATURES = Features({name: Value("string") for name in ("id", *TEXTS, "label")})
# As numbered by XNLI, MultiNLI and SNLI.
LABELS = ("entailment", "neutral", "contradiction")
read_pair = partial(read_sentence_pair, columns=TEXTS, classes=LABELS)


@dataclass
class NliDataArguments(TaskDataArguments):
    """Pairs of sentences with the columns `premise`, `hypothesis` and `label` (a name, or 0, 1, 2 as in XNLI)."""

    dataset_name: str | None = arg("facebook/xnli", help="Training data on the Hub or in a folder (data/nli).")


@dataclass
class NliTrainingArguments(FineTuningArguments):
    """Training, with the paper's settings."""

    learning_rate: float = arg(5e-5, help="Peak learning rate; falls linearly to 0.")
    num_train_epochs: float = arg(2, help="Passes over the training data.")


def main() -> None:
    # --- Arguments ---
    args = parse_task_arguments("nli", NliDataArguments, NliTrainingArguments, description=__doc__)
    data, training = args.data, args.training

    # --- Examples, in the training language and in all others ---
    reader = TaskReader(data, FEATURES, read_pair, texts=TEXTS, **args.reader_options)
    examples, labels = read_examples(
        reader, training, lambda train: known_labels(args, train and name_labels(train, LABELS))
    )

    # --- Model ---
    model, tokenizer = load_model(args, labels)
    max_length = length_limit(data.max_seq_length, 128, tokenizer, model)

    # --- Features ---
    ids = model.config.label2id
    encode = partial(encode_sentence_pairs, columns=TEXTS, tokenizer=tokenizer, max_length=max_length, label2id=ids)
    rows = encode_examples(examples, encode, training, args.num_proc)

    # --- Train, and evaluate in every language ---
    alignment, tracker, facts = continual_alignment(args, model, tokenizer)
    collator, judge = DataCollatorWithPadding(tokenizer), partial(score, labels=labels, measure=args.task.measure)
    trainer = ZeroShotTrainer(model, training, rows, tokenizer, collator, judge, alignment, tracker)
    facts |= train_and_evaluate(trainer, rows, args)

    # --- Share ---
    publish_task_model(trainer, args, examples, facts)


if __name__ == "__main__":
    run_script(main)
