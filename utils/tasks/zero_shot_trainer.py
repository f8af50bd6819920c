"""The trainer of the tasks: fine-tunes on one language and evaluates in many."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import Sampler, SequentialSampler
from transformers import EvalPrediction, PreTrainedTokenizerBase, TrainingArguments

from utils.alignment.continual import ContinualAlignment
from utils.tasks.examples import LanguageData, TaskRows
from utils.training.continual_trainer import ContinualTrainer
from utils.training.tracking import AlignmentTracker
from utils.training.used_embeddings import used_rows_only


# Judges the model's outputs for a set: given its name, its data and, for its rows in their order, the two arrays that
# `_most_probable` makes, returns one record per example, and the metrics.
Score = Callable[[str, LanguageData, Any], tuple[list[dict[str, Any]], dict[str, float]]]


class ZeroShotTrainer(ContinualTrainer):
    """Fine-tunes on one language and evaluates in many.

    Args:
        model: the task model, possibly with an adapter.
        rows: for training, and the sets that evaluation during training measures.
        alignment: with continual learning, what is kept beside the task loss.
        tracker: measures held-out pairs during training.
    """

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        rows: TaskRows,
        tokenizer: PreTrainedTokenizerBase,
        data_collator: Any,
        score: Score,
        alignment: ContinualAlignment | None = None,
        tracker: AlignmentTracker | None = None,
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=rows.train,
            eval_dataset={name: data.rows for name, data in rows.validation.items()},
            processing_class=tokenizer,
            preprocess_logits_for_metrics=_most_probable,
            alignment=alignment,
        )
        self.eval_sets: Mapping[str, LanguageData] = rows.validation
        self.score = score
        self.records: dict[str, list[dict[str, Any]]] = {}
        if tracker:
            tracker.watch(self)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        pairs = self.alignment.pairs if self.alignment else None
        with used_rows_only(self, self.train_dataset, pairs):
            return super().train(*args, **kwargs)

    def evaluate_sets(self, sets: Mapping[str, LanguageData], metric_key_prefix: str) -> dict[str, float]:
        """Measure every set. Metrics are named `{prefix}_{set}_{metric}`; `records` holds the predictions by set."""
        self.eval_sets, self.eval_dataset = sets, {name: data.rows for name, data in sets.items()}
        self.records = {}
        return self.evaluate(metric_key_prefix=metric_key_prefix)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """As `Trainer.evaluate`, which calls this again with the name of each set."""
        if isinstance(eval_dataset, str):
            self.compute_metrics = partial(self._judge, eval_dataset)
        return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    def _judge(self, name: str, outputs: EvalPrediction) -> dict[str, float]:
        self.records[name], metrics = self.score(name, self.eval_sets[name], outputs.predictions)
        return metrics

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler | None:
        """In the order of the rows (which `Trainer` changes when training batches are grouped by length)."""
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None


def _most_probable(logits: Any, labels: object) -> tuple[torch.Tensor, torch.Tensor]:
    """The probability and the number of the best class, so that not all classes are kept; for QA, both logits."""
    return logits if isinstance(logits, tuple) else tuple(logits.float().softmax(dim=-1).max(dim=-1))
