#!/usr/bin/env python
"""Extractive question answering: fine-tune in English, evaluate in other languages, or across them.

    accelerate launch run_qa.py --model aligned-mbert-hi --do_train --do_eval --eval_languages en hi --output_dir qa-hi

Which words of a paragraph answer a question? Trained on SQuAD and evaluated on XQuAD by default, with the settings of
Efimov et al. (ECIR 2023). --question_languages and --context_languages pair questions in one language with contexts in
another. With --continual the alignment loss is kept beside the task loss, so that fine-tuning does not undo what
`run_align.py` has done.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from transformers import AutoModelForQuestionAnswering, DataCollatorWithPadding

from utils.core.arguments import arg, at_least
from utils.core.errors import InputError, run_script
from utils.evaluation.metrics import load_metric
from utils.evaluation.metrics.answers import ARTICLES, answer_scores
from utils.tasks.examples import LanguageData, TaskDataArguments
from utils.tasks.fine_tuning import FineTuning, FineTuningArguments
from utils.tasks.question_answering import (
    CONFIGS,
    FEATURES,
    CrossLingualReader,
    only_tydi_language,
    pair_name,
    read_question,
    read_questions,
)
from utils.tasks.windows import encode_windows, find_answers


@dataclass
class QaDataArguments(TaskDataArguments):
    """Questions with the columns `question`, `context`, `answers` (lists `text` and `answer_start`) and `id`."""

    dataset_name: str | None = arg(
        "rajpurkar/squad",
        help="Training data: a data set on the Hub or in a local folder; others that work as they are: "
        "rajpurkar/squad_v2 (with --version_2_with_negative), google-research-datasets/tydiqa, data/qa.",
    )
    eval_dataset_name: str | None = arg(
        None,
        help="Data to evaluate on. Default: google/xquad for models trained on SQuAD, else --dataset_name. Others: "
        "google/xtreme with `--eval_dataset_config_name MLQA.{context_language}.{question_language}`, "
        "google-research-datasets/tydiqa.",
    )
    eval_dataset_config_name: str | None = arg(
        None,
        help="Its configuration; {language}, or {context_language} and {question_language}, stand for the "
        "languages. Default: the one that fits.",
    )
    train_file: str | None = arg(
        None, help="Training data in a file instead: SQuAD's .json, .jsonl or .parquet; also .gz."
    )
    question_languages: list[str] | None = arg(
        None,
        help="Cross-lingual QA: questions in these languages about contexts in all --context_languages. Default: "
        "questions and contexts in the same language, each of --eval_languages.",
    )
    context_languages: list[str] | None = arg(
        None, help="Languages of the contexts. Default, with the above: --eval_languages."
    )
    language_pairs: list[str] | None = arg(
        None,
        help="Only these pairs instead, question's language first: `en-en hi-hi hi-en en-hi`; `hi` means `hi-hi`.",
    )
    answer_normalization: str = arg(
        "auto",
        help="What is forgiven when answers are compared: `squad` as SQuAD's script does, in every language (usual "
        "for XQuAD and TyDi QA); `mlqa`: articles and punctuation of each language; `auto`: mlqa for MLQA.",
        choices=["auto", "squad", "mlqa"],
    )
    version_2_with_negative: bool = arg(
        False,
        help="Some questions have no answer, as in SQuAD v2, and the model may say so.",
        hyperparameter=True,
    )
    null_score_diff_threshold: float = arg(
        0.0, help="Say so if the logits of no answer exceed those of the best answer by more than this."
    )
    max_seq_length: int | None = arg(
        None,
        help="Tokens of question and context; a longer context is cut into windows. Default: 384.",
        hyperparameter=True,
    )
    doc_stride: int = arg(128, help="Tokens that neighbouring windows share.", hyperparameter=True)
    max_question_length: int = arg(64, help="Cut questions after this many tokens.", hyperparameter=True)
    n_best_size: int = arg(20, help="Spans that share out the probability of an answer.")
    max_answer_length: int = arg(30, help="Tokens of the longest answer.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("doc_stride", "max_question_length", "n_best_size", "max_answer_length"):
            at_least(1, self, name)
        if self.language_pairs and (self.question_languages or self.context_languages):
            raise InputError(
                "--language_pairs says everything about languages; leave --question_languages and --context_languages out."
            )
        if bad := [pair for pair in self.language_pairs or () if not all(pair.split("-")) or pair.count("-") > 1]:
            raise InputError(f"--language_pairs {bad[0]} is no pair of languages; write it like hi-en.")
        if self.eval_dataset_name is None and self.dataset_name in ("rajpurkar/squad", "rajpurkar/squad_v2"):
            self.eval_dataset_name = "google/xquad"
        if self.answer_normalization == "auto":
            source = f"{self.eval_dataset_name} {self.eval_dataset_config_name}"
            self.answer_normalization = "mlqa" if "mlqa" in source.lower() else "squad"
        if self.answer_normalization == "mlqa":
            if unknown := [context for _, context in self.pairs() if context not in ARTICLES]:
                raise InputError(f"MLQA has no rules for {unknown[0]}; add --answer_normalization squad.")
            if self.version_2_with_negative:
                raise InputError("MLQA has no questions without answer; add --answer_normalization squad.")

    def pairs(self) -> list[tuple[str, str]]:
        """Question and context language of every set that is evaluated."""
        if self.language_pairs:
            pairs = [tuple(pair.split("-")) for pair in self.language_pairs]
            return list(dict.fromkeys((pair[0], pair[-1]) for pair in pairs))
        if not self.question_languages and not self.context_languages:
            return [(language, language) for language in self.eval_languages]
        questions, contexts = (
            given or self.eval_languages for given in (self.question_languages, self.context_languages)
        )
        return [(question, context) for question in questions for context in contexts]

    def set_names(self) -> list[str]:
        return [pair_name(*pair) for pair in self.pairs()]

    def languages(self) -> list[str]:
        return list(dict.fromkeys(language for pair in self.pairs() for language in pair))


@dataclass
class QaTrainingArguments(FineTuningArguments):
    """The settings of the paper."""

    learning_rate: float = arg(3e-5, help="Peak learning rate; falls linearly to 0.")
    num_train_epochs: float = arg(2, help="Passes over the training data.")


def main() -> None:
    # --- Arguments ---
    run = FineTuning.from_command_line("qa", QaDataArguments, QaTrainingArguments, __doc__)
    data = run.data

    # --- Data ---
    read = partial(read_question, unanswerable=data.version_2_with_negative)
    reader = CrossLingualReader(
        data, FEATURES, read, CONFIGS, read_questions, only_tydi_language, pairs=data.pairs(), **run.reading
    )
    examples, _ = run.read(reader)

    # --- Model ---
    model, tokenizer = run.load_model(AutoModelForQuestionAnswering)
    max_length = run.length_limit(384, model, tokenizer)
    window = {"max_length": max_length, "stride": data.doc_stride, "max_question_length": data.max_question_length}
    encode = (partial(encode_windows, keep_offsets=kept) for kept in (True, False))
    rows = run.encoded(examples, *encode, tokenizer=tokenizer, **window)

    # --- Train ---
    trainer = run.trainer(model, tokenizer, rows, DataCollatorWithPadding(tokenizer), partial(score, data=data))
    run.train(trainer)

    # --- Evaluate, in every language ---
    run.evaluate(trainer, rows)

    # --- Share ---
    run.share(trainer, examples)


def score(
    name: str, rows: LanguageData, logits: tuple[np.ndarray, np.ndarray], data: QaDataArguments
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The answer to every question, exact match and F1.

    Args:
        name: of the set.
        rows: its questions and their windows.
        logits: of start and end, [windows, longest row] each.
        data: how answers are found and compared.

    Returns:
        Records with `id`, `gold` (all right answers), `prediction`, its probability `score`, `exact_match` and `f1`
        (between 0 and 1); and the means of the last two in per cent, with what SQuAD's script for v2 adds.
    """
    threshold = data.null_score_diff_threshold if data.version_2_with_negative else None
    version_2 = data.version_2_with_negative
    threshold = data.null_score_diff_threshold if version_2 else None
    answers = find_answers(rows, *logits, data.n_best_size, data.max_answer_length, threshold)
    language = dict(zip(data.set_names(), data.pairs()))[name][1] if data.answer_normalization == "mlqa" else None
    records, predictions, references = [], [], []
    for question, answer in zip(rows.examples, answers):
        gold = question["answers"]["text"]
        exact_match, f1 = answer_scores(answer.text, gold, language, version_2)
        told = {"id": question["id"], "gold": gold, "prediction": answer.text, "score": round(answer.probability, 6)}
        records.append({**told, "exact_match": exact_match, "f1": round(f1, 6)})
        doubt = {"no_answer_probability": answer.null_score_difference} if version_2 else {}
        predictions.append({"id": question["id"], "prediction_text": answer.text, **doubt})
        references.append({"id": question["id"], "answers": question["answers"]})
    metric = load_metric("mlqa", language) if language else load_metric("squad", "v2" if version_2 else None)
    return records, metric.compute(predictions=predictions, references=references)


if __name__ == "__main__":
    run_script(main)
