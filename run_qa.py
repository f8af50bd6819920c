#!/usr/bin/env python
"""Extractive question answering: fine-tune in English, evaluate in other languages, or across them.

    accelerate launch run_qa.py --model aligned-mbert-hi --do_train --do_eval --eval_languages en hi --output_dir qa-hi

Which words of a paragraph answer a question? Trained on SQuAD and evaluated on XQuAD by default, with the settings of
Efimov et al. (ECIR 2023). --question_languages and --context_languages pair questions in one language with contexts in
another.
"""

from utils.core.kept_help import show_kept_help


if __name__ == "__main__":
    show_kept_help(__file__)  # (the imports below take seconds)

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, ClassVar

import numpy as np
from transformers import DataCollatorWithPadding

from utils.core.arguments import arg
from utils.core.data_sets import full_name
from utils.core.errors import InputError, run_script
from utils.evaluation.answers import ARTICLES, answer_scores, mean_scores, version_2_scores
from utils.tasks.arguments import FineTuningArguments, parse_task_arguments
from utils.tasks.continual import continual_alignment
from utils.tasks.data_arguments import TaskDataArguments
from utils.tasks.examples import LanguageData, Measure, encode_examples
from utils.tasks.question_answering import FEATURES, CrossLingualReader, pair_name, read_question
from utils.tasks.reader import read_examples
from utils.tasks.steps import length_limit, load_model, publish_task_model, train_and_evaluate
from utils.tasks.windows import encode_windows, find_answers, window_sizes
from utils.tasks.zero_shot_trainer import ZeroShotTrainer


# What the head gives every token, start and end, by the names that models for QA have in their configuration. (An encoder that was
# made for classification has other ones, and another number of them.)
LOGITS = ("LABEL_0", "LABEL_1")
# Models that are trained on these are evaluated on XQuAD.
SQUAD = ("rajpurkar/squad", "rajpurkar/squad_v2")


@dataclass
class QaDataArguments(TaskDataArguments):
    """Questions with the columns `question`, `context`, `answers` (lists `text` and `answer_start`) and `id`."""

    dataset_name: str | None = arg(
        "rajpurkar/squad",
        help="Training data: a data set on the Hub or in a local folder, for example rajpurkar/squad_v2 (with "
        "--version_2_with_negative), google-research-datasets/tydiqa or data/qa.",
    )
    eval_dataset_name: str | None = arg(
        None,
        help="Data set for evaluation. Default: google/xquad for models trained on SQuAD, else --dataset_name. Another: "
        "google/xtreme with `--eval_dataset_config_name MLQA.{context_language}.{question_language}`.",
    )
    eval_dataset_config_name: str | None = arg(
        None,
        help="Its configuration; {language}, or {context_language} and {question_language}, stand for the languages.",
    )
    train_file: str | None = arg(None, help="Training data in a file: SQuAD's .json, .jsonl or .parquet; also .gz.")
    question_languages: list[str] | None = arg(
        None,
        help="Cross-lingual QA: questions in these languages about contexts in all --context_languages. Default: "
        "questions and contexts in the same language, each of --eval_languages.",
    )
    context_languages: list[str] | None = arg(None, help="Languages of the contexts. Default: --eval_languages.")
    language_pairs: list[str] | None = arg(
        None,
        help="Only these pairs instead, language of the question first: `en-en hi-hi hi-en en-hi`; `hi` means `hi-hi`.",
    )
    answer_normalization: str = arg(
        "auto",
        help="Normalization before answers are compared: `squad` as SQuAD's script does, in every language (usual "
        "for XQuAD and TyDi QA); `mlqa`: articles and punctuation of each language; `auto`: mlqa if the data set, its configuration or the "
        "file that is evaluated has mlqa in its name.",
        choices=["auto", "squad", "mlqa"],
    )
    version_2_with_negative: bool = arg(
        False, help="Some questions have no answer (SQuAD v2), and the model can predict that.", hyperparameter=True
    )
    null_score_diff_threshold: float = arg(0.0, help="No answer if its logits exceed the best span's by more.")
    max_seq_length: int | None = arg(
        None, help="Tokens of question and window of the context. Default: 384.", hyperparameter=True, at_least=1
    )
    doc_stride: int = arg(128, help="Tokens that neighboring windows share.", hyperparameter=True, at_least=1)
    max_question_length: int = arg(64, help="Tokens of the longest question.", hyperparameter=True, at_least=1)
    n_best_size: int = arg(20, help="Spans over which the probability of an answer is normalized.", at_least=1)
    max_answer_length: int = arg(30, help="Tokens of the longest answer.", at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.language_pairs and (self.question_languages or self.context_languages):
            raise InputError("--language_pairs names all languages; omit --question_languages, --context_languages.")
        if bad := [pair for pair in self.language_pairs or () if not all(pair.split("-")) or pair.count("-") > 1]:
            raise InputError(f"--language_pairs {bad[0]} is not a pair of languages; write it like hi-en.")
        if self.eval_dataset_name is None and full_name(str(self.dataset_name)) in SQUAD:
            self.eval_dataset_name = "google/xquad"
            self.test_split = self.validation_split if self.test_split == "test" else self.test_split  # (the only one)
        if self.answer_normalization == "auto" and not (self.validation_file or self.test_file):
            # (Of which languages there are rules for is to be known early; what else is MLQA, is seen when it is read.)
            self.answer_normalization = "mlqa" if _is_mlqa(map(str, self.evaluated_data_set())) else "auto"
        if self.answer_normalization == "mlqa":
            self._check_rules(())

    def assume_languages(self, adjusted_to: Sequence[str]) -> None:
        super().assume_languages(adjusted_to)
        if self.answer_normalization == "mlqa":
            if self.assumes_languages:
                self.eval_languages = [language for language in self.eval_languages if language in ARTICLES]
            self._check_rules(context for _, context in self.pairs())

    def choose_normalization(self, evaluated: Mapping[str, str]) -> None:
        """Set `answer_normalization`, if it is `auto`, by what was read of each language: a file, or a data set and configuration."""
        if self.answer_normalization == "auto":
            self.answer_normalization = "mlqa" if _is_mlqa(evaluated.values()) else "squad"
        if self.answer_normalization == "mlqa":
            self._check_rules(context for _, context in self.pairs() if context in evaluated)

    def _check_rules(self, contexts: Iterable[str]) -> None:
        """Raise `InputError` if MLQA has no rules for answers in one of these languages, or for what is evaluated."""
        if self.version_2_with_negative:
            raise InputError("MLQA has no questions without answer; add --answer_normalization squad.")
        if unknown := [context for context in contexts if context not in ARTICLES]:
            raise InputError(f"MLQA has no rules for {unknown[0]}; add --answer_normalization squad.")

    def pairs(self) -> list[tuple[str, str]]:
        """Question and context language of every set that is evaluated."""
        if self.language_pairs:
            pairs = [tuple(pair.split("-")) for pair in self.language_pairs]
            return list(dict.fromkeys((pair[0], pair[-1]) for pair in pairs))
        if not self.question_languages and not self.context_languages:
            return [(language, language) for language in self.eval_languages]
        return list(
            product(self.question_languages or self.eval_languages, self.context_languages or self.eval_languages)
        )

    def set_names(self) -> list[str]:
        return [pair_name(*pair) for pair in self.pairs()]

    def languages_of(self, name: str) -> Sequence[str]:
        return dict(zip(self.set_names(), self.pairs()))[name]

    def other_metrics(self) -> list[str]:
        of_version_2 = product(("HasAns", "NoAns", "best"), ("exact", "f1")) if self.version_2_with_negative else ()
        return ["loss", *map("_".join, of_version_2)]

    def languages(self) -> list[str]:
        return list(dict.fromkeys(language for pair in self.pairs() for language in pair))


@dataclass
class QaTrainingArguments(FineTuningArguments):
    """Training, with the paper's settings."""

    WITHOUT_USE: ClassVar = {
        **FineTuningArguments.WITHOUT_USE,
        "label_smoothing_factor": "the places of answers are no labels to Trainer",
    }

    learning_rate: float = arg(3e-5, help="Peak learning rate; falls linearly to 0.")
    num_train_epochs: float = arg(2, help="Passes over the training data.")


def main() -> None:
    # --- Arguments ---
    args = parse_task_arguments("qa", QaDataArguments, QaTrainingArguments, description=__doc__)
    data, training = args.data, args.training

    # --- Examples: questions in the training language, and for every pair of languages ---
    read = partial(read_question, unanswerable=data.version_2_with_negative)
    reader = CrossLingualReader(data, FEATURES, read, pairs=data.pairs(), **args.reader_options)
    examples, _ = read_examples(reader, training)
    data.choose_normalization(reader.evaluated)

    # --- Model ---
    model, tokenizer = load_model(args, LOGITS)

    # --- Features: windows of the contexts ---
    max_length = length_limit(data.max_seq_length, 384, tokenizer, model)
    stride, max_question_length = window_sizes(tokenizer, max_length, data.doc_stride, data.max_question_length)
    encode = partial(
        encode_windows,
        tokenizer=tokenizer,
        max_length=max_length,
        stride=stride,
        max_question_length=max_question_length,
    )
    to_train, to_evaluate = partial(encode, keep_offsets=False), partial(encode, keep_offsets=True)
    rows = encode_examples(examples, to_evaluate, training, args.num_proc, to_train)

    # --- Train, and evaluate in every language ---
    alignment, tracker, facts = continual_alignment(args, model, tokenizer)
    judge, pad = partial(score, arguments=data, measure=args.task.measure), DataCollatorWithPadding(tokenizer)
    trainer = ZeroShotTrainer(model, training, rows, tokenizer, pad, judge, alignment, tracker)
    facts |= train_and_evaluate(trainer, rows, args)

    # --- Share ---
    publish_task_model(trainer, args, examples, facts)


def _is_mlqa(names: Iterable[str]) -> bool:
    return any("mlqa" in os.path.basename(name).lower() for name in names)


def score(
    name: str, data: LanguageData, logits: tuple[np.ndarray, np.ndarray], arguments: QaDataArguments, measure: Measure
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The answer to every question, exact match and F1, from the logits of start and end, [windows, longest row] each.

    Returns:
        Records with `id`, `gold` (all right answers), `prediction`, its probability `score`, `exact_match` and `f1`
        (between 0 and 1); and the means of the last two in percent, with what SQuAD's script for v2 adds.
    """
    version_2 = arguments.version_2_with_negative
    threshold = arguments.null_score_diff_threshold if version_2 else None
    answers = find_answers(data, *logits, arguments.n_best_size, arguments.max_answer_length, threshold)
    mlqa = arguments.answer_normalization == "mlqa"
    language = arguments.languages_of(name)[1] if mlqa else None
    texts, gold = [answer.text for answer in answers], [question["text"] for question in data.examples["answers"]]
    scores = [answer_scores(text, right, language, version_2) for text, right in zip(texts, gold)]
    records = [
        {"id": identity, "gold": right, "prediction": answer.text, "score": round(answer.probability, 6),
         "exact_match": exact_match, "f1": round(f1, 6)}
        for identity, right, answer, (exact_match, f1) in zip(data.examples["id"], gold, answers, scores)
    ]  # fmt: skip
    metrics = mean_scores(scores, "exact_match", "f1") | measure(texts, gold)
    if version_2:
        null_scores = [answer.null_score_difference for answer in answers]
        metrics |= version_2_scores(
            scores, [bool(right) for right in gold], [bool(text) for text in texts], null_scores
        )
    return records, metrics


if __name__ == "__main__":
    run_script(main)
