"""The trainer of the tasks: fine-tunes on one language and evaluates in many."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from datasets import Dataset
from torch.utils.data import Sampler, SequentialSampler
from transformers import EvalPrediction

from utils.tasks.examples import LanguageData
from utils.training.continual_trainer import ContinualTrainer
from utils.training.steps import IDS_OF_PAIRS, length_grouped_sampler
from utils.training.used_embeddings import used_rows_only


class ZeroShotTrainer(ContinualTrainer):
    """Fine-tunes on one language and evaluates in many.

    Args:
        eval_sets: what evaluation during training measures, by name (a language).
        score: judges the model's outputs for a set. Given the name, the set and the logits of its rows (in their
            order), it returns one record per example, and the metrics.
        kwargs: as for `ContinualTrainer`.
    """

    def __init__(
        self,
        *args: Any,  # noqa: ANN401
        eval_sets: Mapping[str, LanguageData],
        score: Callable[[str, LanguageData, Any], tuple[list[dict[str, Any]], dict[str, float]]],
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*args, eval_dataset={name: data.rows for name, data in eval_sets.items()}, **kwargs)
        self.eval_sets = eval_sets
        self.score = score
        self.records: dict[str, list[dict[str, Any]]] = {}

    def train(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        pairs = self.alignment.pairs if self.alignment else None
        with used_rows_only(self, {"input_ids": self.train_dataset, IDS_OF_PAIRS: pairs}):
            return super().train(*args, **kwargs)

    def evaluate_sets(self, sets: Mapping[str, LanguageData], metric_key_prefix: str) -> dict[str, float]:
        """Measure every set; metrics are called `{prefix}_{set}_{metric}`, and `records` hold what was predicted."""
        self.eval_sets, self.eval_dataset = sets, {name: data.rows for name, data in sets.items()}
        self.records = {}
        return self.evaluate(metric_key_prefix=metric_key_prefix)

    def evaluate(
        self,
        eval_dataset: str | Dataset | dict[str, Dataset] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """As `Trainer.evaluate`, which comes here again with the name of each set."""
        if isinstance(eval_dataset, str):
            self.compute_metrics = partial(self._judge, eval_dataset)
        return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    def _judge(self, name: str, outputs: EvalPrediction) -> dict[str, float]:
        self.records[name], metrics = self.score(name, self.eval_sets[name], outputs.predictions)
        return metrics

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        # (The rows given here have lost the column that is no input of the model: their length.)
        return length_grouped_sampler(self, self.train_dataset) or super()._get_train_sampler(train_dataset)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler | None:
        """In the order of the rows (which `Trainer` changes when training batches are grouped by length)."""
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None
