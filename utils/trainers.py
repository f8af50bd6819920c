"""Trainers that know the alignment loss."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets import Dataset
from peft import PeftModel
from torch import nn
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import EvalPrediction, Trainer
from transformers.trainer_utils import speed_metrics

from utils.adapters import save_adapter
from utils.alignment import (
    COLUMNS,
    REFERENCE_COLUMNS,
    SPECIAL_TOKEN,
    AlignmentCollator,
    AlignmentLoss,
    AlignmentTerms,
    ContinualAlignment,
    LengthGroupedBatches,
    word_vectors,
)
from utils.encoders import load_encoder_weights, save_encoder, save_task_model
from utils.interruption import SaveWhenInterrupted
from utils.reference_vectors import with_reference_vectors
from utils.retrieval import retrieve
from utils.tables import column_array
from utils.task_data import LanguageData
from utils.trainable import encoder_of
from utils.used_embeddings import used_rows_only


# Under this name a task's batch carries its share of the parallel pairs.
_PAIRS = "parallel_pairs"
_IDS_OF_PAIRS = "source_input_ids,english_input_ids"


class AlignmentTrainer(Trainer):
    """Adjusts an encoder: `alignment_weight` · alignment + `regularization_weight` · regularization.

    Both losses are means over the links and the English words of the *global* batch: with several processes or
    accumulated batches, one with more links counts for more, and the step equals that of one process with the
    whole batch. Each is logged under its own name (`alignment_loss`, `regularization_loss`), beside
    `pairs_per_second`.

    Args:
        alignment_loss: objective, frozen reference model (f0) and layer.
        alignment_weight, regularization_weight: of the two losses (both 1 in Efimov et al., 2023, section 3).
        eval_layers: hidden states at which evaluation measures word retrieval, beside the one that is aligned.
        kwargs: as for `Trainer`; `model` is an encoder of `load_encoder`, possibly `with_lora`; `train_dataset` comes from `encode_pairs`,
            `eval_dataset` too, or is a dictionary of such, by language; `data_collator` is an `AlignmentCollator`.
    """

    # compute_loss divides by the counts of the whole accumulated batch itself.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        *args: Any,  # noqa: ANN401
        alignment_loss: AlignmentLoss,
        alignment_weight: float = 1.0,
        regularization_weight: float = 1.0,
        eval_layers: tuple[int, ...] = (),
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*args, **kwargs)
        self.can_return_loss = True
        self.alignment_loss = alignment_loss
        self.alignment_loss.to(self.args.device)
        self.alignment_weight = alignment_weight
        self.regularization_weight = regularization_weight
        self.eval_layers = eval_layers
        self._meter = LossMeter()

    def _set_signature_columns_if_needed(self) -> None:
        """The collator, not the model's `forward`, says which columns are needed."""
        self._signature_columns = [*COLUMNS, *REFERENCE_COLUMNS]

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        rows = self.train_dataset if train_dataset is None else train_dataset
        return _length_grouped(self, rows) or super()._get_train_sampler(train_dataset)

    # --- The step ---

    def get_batch_samples(
        self,
        epoch_iterator: Any,
        num_batches: int,
        device: torch.device,  # noqa: ANN401
    ) -> tuple[list, torch.Tensor]:
        """The batches of one optimizer step and, for the means, their links and English words over all processes."""
        self._meter.begin_step("alignment_loss", "regularization_loss")
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = [sum(len(b["links"]) for b in batches), sum(len(b["english_word_lengths"]) for b in batches)]
        return batches, self.accelerator.reduce(torch.tensor(counts, dtype=torch.float32, device=device), "sum")

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The weighted sum of both losses: this batch's share of their means over the global batch.

        Args:
            model: the encoder, possibly wrapped.
            inputs: a batch of `AlignmentCollator`.
            return_outputs: also return the two losses by name.
            num_items_in_batch: [2], links and English words of the global batch; by default this batch's own.
        """
        terms = self.alignment_loss(model, inputs, self.accelerator.autocast)
        losses = _means(terms, num_items_in_batch, self.accelerator.num_processes)
        loss = (
            self.alignment_weight * losses["alignment_loss"]
            + self.regularization_weight * losses["regularization_loss"]
        )
        if model.training:
            n_pairs = len(inputs["source_input_ids"]) * self.accelerator.num_processes
            self._meter.add(losses, n_pairs)
        return (loss, losses) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:  # a step's log, not an evaluation's or the summary at the end
            pace = {"pairs_per_second": round(self._meter.pairs_per_second(), 2)}
            logs = {"loss": logs.pop("loss"), **self._meter.read(self.accelerator), **logs, **pace}
        super().log(logs, start_time)

    def train(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        self._meter = LossMeter()
        if self.regularization_weight and _n_steps(self) * _step_size(self) >= 2 * len(self.train_dataset):
            self.train_dataset = _seen_by_reference(self, self.train_dataset, self.alignment_loss, self.data_collator)
        with used_rows_only(self, {_IDS_OF_PAIRS: self.train_dataset}):
            return super().train(*args, **kwargs)

    def floating_point_ops(self, inputs: Mapping[str, torch.Tensor]) -> int:
        """Forward and backward of both sides through f (6 per weight and token), forward of English through f0 (2)."""
        weights = self.model.num_parameters(exclude_embeddings=True)
        source, english = inputs["source_input_ids"].numel(), inputs["english_input_ids"].numel()
        return weights * (6 * (source + english) + 2 * english)

    # --- Evaluation ---

    def evaluate(
        self,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Measure both losses and word retrieval on held-out pairs.

        Word retrieval (Cao et al., 2020, section 4): every linked word looks for its link among all linked words of
        the other side, in all held-out pairs of its language, by cosine similarity; accuracy is how often the
        nearest one is the very word it is linked with, in that sentence. Special tokens take no part.

        Args:
            eval_dataset: rows of `encode_pairs`, or one such data set per language.
            ignore_keys: not used.
            metric_key_prefix: what the names of the metrics begin with.

        Returns:
            `eval_alignment_loss` and `eval_regularization_loss` (means over all links, all English words),
            `eval_loss` (their weighted sum), `eval_word_retrieval_accuracy` (mean over languages and directions),
            and per direction `eval_hi-en_word_retrieval_accuracy`, the querying language first; for `eval_layers`
            `eval_hi-en_layer5_word_retrieval_accuracy`.
        """
        start = time.time()
        datasets = self.eval_dataset if eval_dataset is None else eval_dataset
        datasets = datasets if isinstance(datasets, dict) else {"source": datasets}
        sums = torch.zeros(4, dtype=torch.float64)
        metrics, accuracies = {}, []
        for language, dataset in datasets.items():
            language_sums, vectors = self._measure(dataset)
            sums += language_sums
            for layer, (source, english) in vectors.items():
                label = "" if layer == self.alignment_loss.layer else f"layer{layer}_"
                for name, query, candidates in (
                    (f"{language}-en", source, english),
                    (f"en-{language}", english, source),
                ):
                    accuracy = retrieve(query, candidates).accuracy
                    metrics[f"{metric_key_prefix}_{name}_{label}word_retrieval_accuracy"] = accuracy
                    accuracies += [accuracy] if not label else []
        alignment, regularization = (sums[:2] / sums[2:].clamp(min=1)).tolist()
        n_pairs = sum(len(dataset) for dataset in datasets.values())
        metrics = {
            f"{metric_key_prefix}_loss": self.alignment_weight * alignment
            + self.regularization_weight * regularization,
            f"{metric_key_prefix}_alignment_loss": alignment,
            f"{metric_key_prefix}_regularization_loss": regularization,
            f"{metric_key_prefix}_word_retrieval_accuracy": sum(accuracies) / len(accuracies),
            **metrics,
            f"{metric_key_prefix}_links": int(sums[2]),
            **speed_metrics(metric_key_prefix, start, num_samples=n_pairs),
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _measure(self, dataset: Dataset) -> tuple[torch.Tensor, dict[int, tuple[torch.Tensor, torch.Tensor]]]:
        """Sums of both losses with their counts [4], and the vectors of linked words, both sides, by layer."""
        aligned = self.alignment_loss.layer
        layers = list(dict.fromkeys([aligned, *self.eval_layers]))
        # Every process takes its own share: a distributed sampler would repeat pairs to even the shares out.
        lengths = column_array(dataset, "length").sum(axis=1)
        by_length = dataset.select(np.argsort(lengths, kind="stable"))
        share = by_length.shard(self.accelerator.num_processes, self.accelerator.process_index)
        loader = DataLoader(share, batch_size=self.args.eval_batch_size, collate_fn=self.data_collator)
        model = self.model.eval()
        sums = torch.zeros(4, dtype=torch.float64)
        vectors: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {layer: [] for layer in layers}
        for batch in loader:
            batch = self._prepare_inputs(batch)
            with torch.no_grad(), self.compute_loss_context_manager():
                source = word_vectors(model, batch, "source", layers)
                english = word_vectors(model, batch, "english", layers)
                before = word_vectors(self.alignment_loss.reference_model, batch, "english", [aligned])[0]
                terms = self.alignment_loss.compare(source[0], english[0], before, batch)
            sums += torch.tensor(
                [terms.alignment.item(), terms.regularization.item(), terms.n_links, terms.n_words],
                dtype=torch.float64,
            )
            links = batch["links"][batch["source_spelling"] != SPECIAL_TOKEN]
            for layer, source_words, english_words in zip(layers, source, english):
                vectors[layer].append((source_words[links[:, 0]].cpu(), english_words[links[:, 1]].cpu()))
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        gathered = gather_object([(sums, vectors)])
        joined = {
            layer: tuple(torch.cat([part[side] for _, parts in gathered for part in parts[layer]]) for side in (0, 1))
            for layer in layers
        }
        return torch.stack([part for part, _ in gathered]).sum(dim=0), joined

    # --- Checkpoints ---

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Save every weight of the original checkpoint, so that any of ours can take its place."""
        _save(self, save_encoder, output_dir, state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        encoder = self.accelerator.unwrap_model(model or self.model)
        if isinstance(encoder, PeftModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_encoder_weights(encoder, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(self.state.best_model_checkpoint)


class ContinualTrainer(Trainer):
    """A `Trainer` for any task that keeps the alignment loss beside the task loss (*continual learning*).

    loss = task + 0.01 · alignment + 1 · regularization (Efimov et al., ECIR 2023, section 3): beside every batch of the
    task goes a batch of parallel pairs, whose linked words are kept together in the task model's own encoder, and whose
    English words are kept where the original encoder had them. Each loss is logged under its own name (`task_loss`,
    `alignment_loss`, `regularization_loss`).

    All three are means over the *global* batch, over processes and accumulated batches: the task loss by its labels
    (those that are not -100), the others by links and English words. So a step equals that of one process with the
    whole batch. (Trainer alone divides a token classifier's loss by the tokens of each part.) Without pairs, or with
    both weights 0, a run is the same as `Trainer`'s, to the last bit.

    Args:
        alignment: the pairs and losses; None for the task loss alone.
        kwargs: as for `Trainer`; `model` is any `AutoModelFor…` of an encoder, possibly `with_lora`.
    """

    # compute_loss divides by the counts of the whole accumulated batch itself.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        *args: Any,  # noqa: ANN401
        alignment: ContinualAlignment | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*args, **kwargs)
        # Trainer believes that a model whose `forward` takes `**kwargs` divides by `num_items_in_batch`; heads on
        # encoders do not.
        self.model_accepts_loss_kwargs = False
        self.alignment = alignment
        if alignment:
            alignment.loss.to(self.args.device)
        self._meter = LossMeter()

    # --- The step ---

    def get_batch_samples(
        self,
        epoch_iterator: Any,  # noqa: ANN401
        num_batches: int,
        device: torch.device,
    ) -> tuple[list, torch.Tensor]:
        """The task's batches of one optimizer step, each with its share of the step's pairs.

        Returns:
            The batches, and [3]: labels, links and English words of the step, over all processes.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = torch.zeros(3, device=device)
        for batch in batches:
            counts[0] += _n_labels(batch)
        if not self.alignment:
            return batches, self.accelerator.reduce(counts, "sum")
        self._meter.begin_step("task_loss")
        if self.alignment.is_due(self.state.global_step):
            self._meter.begin_step(*self.alignment.weights)
            n_processes, rank = self.accelerator.num_processes, self.accelerator.process_index
            mine = [number * n_processes + rank for number in range(len(batches))]
            shares = self.alignment.batches(self.state.global_step, len(batches) * n_processes, mine)
            for batch, pairs in zip(batches, shares):
                if pairs:
                    counts[1] += len(pairs["links"])
                    counts[2] += len(pairs["english_word_lengths"])
                    batch[_PAIRS] = pairs
        return batches, self.accelerator.reduce(counts, "sum")

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """The task loss and, in training, the weighted losses of the pairs: this batch's share of the step's means.

        Args:
            model: the task model, possibly wrapped.
            inputs: a batch of the task, possibly with pairs.
            return_outputs: also return the model's outputs.
            num_items_in_batch: [3], labels, links and English words of the step; None outside of training.
        """
        pairs = inputs.pop(_PAIRS, None)
        n_labels = _n_labels(inputs)
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
        if model.training and num_items_in_batch is not None:
            # Gradients are averaged over processes, sums are wanted.
            loss = loss * (n_labels / num_items_in_batch[0].clamp(min=1) * self.accelerator.num_processes)
            if self.alignment:
                self._meter.add({"task_loss": loss})
            if pairs is not None:
                losses = self._pair_losses(model, pairs, num_items_in_batch[1:])
                self._meter.add(losses)
                for name, weight in self.alignment.weights.items():
                    loss = loss + weight * losses[name]
        return (loss, outputs) if return_outputs else loss

    def _pair_losses(
        self, model: nn.Module, pairs: Mapping[str, torch.Tensor], counts: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        encoder = encoder_of(self.accelerator.unwrap_model(model, keep_torch_compile=False))
        weights = self.alignment.weights
        wanted = {name: f"{name}_loss" in weights for name in ("alignment", "regularization")}
        terms = self.alignment.loss(encoder, pairs, self.accelerator.autocast, **wanted)
        losses = _means(terms, counts, self.accelerator.num_processes)
        return {name: losses[name] for name in weights}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self.alignment:  # a step's log, not an evaluation's or the summary at the end
            logs = {"loss": logs.pop("loss"), **self._meter.read(self.accelerator), **logs}
        super().log(logs, start_time)

    def train(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        self._meter = LossMeter()
        alignment = self.alignment
        if alignment and alignment.regularization_weight and alignment.n_draws(_n_steps(self)) >= len(alignment.pairs):
            alignment.pairs = _seen_by_reference(self, alignment.pairs, alignment.loss, alignment.collator)
        return super().train(*args, **kwargs)

    # --- Checkpoints ---

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        _save(self, save_task_model, output_dir, state_dict)


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
        with used_rows_only(self, {"input_ids": self.train_dataset, _IDS_OF_PAIRS: pairs}):
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
        return _length_grouped(self, self.train_dataset) or super()._get_train_sampler(train_dataset)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler | None:
        """In the order of the rows (which `Trainer` changes when training batches are grouped by length)."""
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None


def train_and_save(trainer: Trainer, checkpoint: str | None) -> None:
    """Train, from a checkpoint if there is one; save the model, the metrics and the trainer's state.

    Raises:
        Interrupted: on Ctrl-C or SIGTERM, with a checkpoint of the last step saved.
    """
    trainer.add_callback(interruption := SaveWhenInterrupted())
    try:
        metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
    finally:
        interruption.restore()
    trainer.save_model(_internal_call=True)  # (without a push of its own: `share` pushes when all is there)
    trainer.log_metrics("train", metrics)
    trainer.save_metrics("train", metrics)
    trainer.save_state()


def _save(
    trainer: Trainer,
    save: Callable[[nn.Module, str, dict[str, torch.Tensor] | None], None],
    output_dir: str | None,
    state_dict: dict[str, torch.Tensor] | None,
) -> None:
    """Save a model, or its adapter alone if it has one, and the tokenizer.

    Not the pickled arguments that `Trainer` puts beside them: `run.json` has them for everybody to read.
    """
    if not trainer.args.should_save:
        return
    output_dir = output_dir or trainer.args.output_dir
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    (save_adapter if isinstance(model, PeftModel) else save)(model, output_dir, state_dict)
    if trainer.processing_class is not None:
        trainer.processing_class.save_pretrained(output_dir)


class LossMeter:
    """Means of the component losses since the last reading, and the pace. Adding waits for no device."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._n_steps: Counter[str] = Counter()
        self._n_pairs = 0
        self._since = time.perf_counter()

    def begin_step(self, *names: str) -> None:
        """A new optimizer step that has these losses: what is added from here on are its batches' shares."""
        self._n_steps.update(names)

    def add(self, losses: Mapping[str, torch.Tensor], n_pairs: int = 0) -> None:
        """Add one batch's share of the losses of its optimizer step."""
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, 0) + loss.detach()
        self._n_pairs += n_pairs

    def pairs_per_second(self) -> float:
        """Pairs that were added since the last reading, by the time that has passed."""
        return self._n_pairs / (time.perf_counter() - self._since)

    def read(self, accelerator: Accelerator) -> dict[str, float]:
        """Mean losses over processes and over the optimizer steps that had them; the next reading starts anew."""
        sums = {name: self._sums.get(name, torch.zeros((), device=accelerator.device)) for name in self._n_steps}
        means = {name: accelerator.reduce(sums[name], "mean").item() / n for name, n in self._n_steps.items()}
        self.__init__()
        return means


def _means(terms: AlignmentTerms, counts: torch.Tensor | None, n_processes: int) -> dict[str, torch.Tensor]:
    """Both losses of a batch as its shares of the means over the global batch, which has so many links and words.

    Gradients are averaged over processes, but sums of the shares are wanted: so each counts as many times as there
    are processes. Without counts the batch stands alone.
    """
    if counts is None:
        n_links, n_words, n_processes = max(terms.n_links, 1), max(terms.n_words, 1), 1
    else:
        n_links, n_words = counts.clamp(min=1).unbind()
    return {
        "alignment_loss": terms.alignment * n_processes / n_links,
        "regularization_loss": terms.regularization * n_processes / n_words,
    }


def _n_labels(batch: Mapping[str, Any]) -> torch.Tensor | int:
    """What a task's loss is a mean over: the labels that count, or the examples where no column is called that."""
    if "labels" in batch:
        return batch["labels"].ne(-100).sum()
    return len(next(iter(batch.values())))


def _length_grouped(trainer: Trainer, rows: Dataset | None) -> LengthGroupedBatches | None:
    """The sampler of `--train_sampling_strategy group_by_length` for rows with a column `length`."""
    args = trainer.args
    if args.train_sampling_strategy != "group_by_length" or not isinstance(rows, Dataset):
        return None
    seed = args.seed if args.data_seed is None else args.data_seed
    return LengthGroupedBatches(column_array(rows, "length"), _step_size(trainer), seed)


def _step_size(trainer: Trainer) -> int:
    """Rows in an optimizer step, over all processes and accumulated batches."""
    args = trainer.args
    return args.train_batch_size * trainer.accelerator.num_processes * args.gradient_accumulation_steps


def _n_steps(trainer: Trainer) -> int:
    """Optimizer steps of the whole training."""
    in_epoch = max(1, len(trainer.train_dataset) // _step_size(trainer))
    return trainer.args.max_steps if trainer.args.max_steps > 0 else int(in_epoch * trainer.args.num_train_epochs)


def _seen_by_reference(trainer: Trainer, pairs: Dataset, loss: AlignmentLoss, collator: AlignmentCollator) -> Dataset:
    """The pairs with what the frozen model makes of them, which is asked once instead of whenever a pair is drawn."""
    with trainer.args.main_process_first(desc="asking the frozen model"):
        return with_reference_vectors(pairs, loss, collator, trainer.accelerator)
