"""The trainer that keeps the alignment loss beside a task loss."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from utils.alignment.continual import ContinualAlignment
from utils.alignment.losses import count_terms
from utils.alignment.negatives import PART
from utils.core.errors import InputError
from utils.models.encoders import save_task_model
from utils.models.layers import encoder_of, in_evaluation_mode, parameters_behind
from utils.training.base_trainer import ComponentTrainer
from utils.training.checkpoints import loss_identity, rows_hash
from utils.training.loss_gradients import LossGradients


# Under this name a task's batch carries its share of the parallel pairs.
_PAIRS = "parallel_pairs"
# Under this name a batch carries how many labels its loss is a mean over.
_LABELS = "n_labels"


class ContinualTrainer(ComponentTrainer):
    """A `Trainer` for any task that keeps the alignment loss beside the task loss (*continual learning*).

    loss = task + 0.01 · alignment + 1 · regularization (Efimov et al., ECIR 2023, section 3): beside every batch of the
    task goes a batch of parallel pairs, whose linked words are kept together in the task model's own encoder, and whose
    English words are kept where the original encoder had them. Each loss is logged under its own name (`task_loss`,
    `alignment_loss`, `sentence_loss`, `regularization_loss`).

    All are means over the *global* batch, over processes and accumulated batches: the task loss by its labels
    (those that are not -100), the others by links, pairs and English words. So a step equals that of one process with the
    whole batch. (Trainer alone divides a token classifier's loss by the tokens of each part. But heads for questions, as in
    transformers, take their softmax over padding, too, so that their loss also depends on which rows are padded together.) Without pairs, or with
    both weights 0, a run in one process is bit-for-bit identical to `Trainer`'s; in several, where the rows fill every batch
    (accelerate repeats rows to fill the last one, which are not counted here).

    Args:
        alignment: the pairs and losses; None for the task loss alone.
        kwargs: as for `Trainer`; `model` is any `AutoModelFor…` of an encoder, possibly `with_lora`.
    """

    save_weights = staticmethod(save_task_model)

    def __init__(self, *args: Any, alignment: ContinualAlignment | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Trainer believes that a model whose `forward` takes `**kwargs` divides by `num_items_in_batch`; heads on
        # encoders do not.
        self.model_accepts_loss_kwargs = False
        self.alignment = alignment
        if alignment:
            self.languages, self.loss_of_language = alignment.collator.languages, alignment.loss.weights.of_language
            alignment.loss.to(self.args.device)
        self._gradients: LossGradients | None = None  # of an optimizer step in which they are measured
        if alignment and alignment.gradients_every:
            self._check_that_gradients_can_be_measured(alignment)

    def _check_that_gradients_can_be_measured(self, alignment: ContinualAlignment) -> None:
        args = self.args
        checkpointing: Any = args.activation_checkpointing_kwargs or {}
        reentrant = args.activation_checkpointing and checkpointing.get("use_reentrant")
        prevented_by = {
            "FSDP": self.is_fsdp_enabled,
            "DeepSpeed": self.is_deepspeed_enabled,
            "--fp16": args.fp16,
            "--torch_compile": args.torch_compile,
            "reentrant activation checkpointing": reentrant,
            "weights of 0": not alignment.loss.weights.losses(),
        }
        if found := next((name for name, prevents in prevented_by.items() if prevents), None):
            raise InputError(f"--log_gradient_cosine cannot measure gradients with {found}; omit one of them.")

    def identity_parts(self) -> dict[str, Any]:
        if not self.alignment:
            return {}
        own = {f"alignment_{name}": getattr(self.alignment, name) for name in ("batch_size", "every", "seed")}
        own["language_sampling"] = asdict(self.alignment.sampling)
        return {**own, "parallel data": rows_hash(self.alignment.pairs), **loss_identity(self.alignment.loss)}

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """The task's batches of one optimizer step, each with its share of the step's pairs.

        With them [4]: labels, links, English words and pairs of the step, over all processes.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = torch.zeros(4, device=device)
        if (n_own := self._n_own_rows()) is not None:
            batches[-1] = _first_rows(batches[-1], n_own)
        for batch in batches:
            batch.setdefault(_LABELS, _n_labels(batch))
            counts[0] += batch[_LABELS]
        if self.alignment:
            self._meter.begin_step("task_loss")
        if self.alignment and self.alignment.is_due(self.state.global_step):
            self._meter.begin_step(*self.alignment.loss.weights.losses())
            n_processes, rank = self.accelerator.num_processes, self.accelerator.process_index
            n_shares = len(batches) * n_processes
            if self.alignment.measures_gradients(self.state.global_step):
                self._gradients = self._begin_gradients(len(batches))
            drawn = self.alignment.batches(self.state.global_step, n_shares, range(rank, n_shares, n_processes))
            shares = [pairs and self._prepare_inputs(pairs) for pairs in drawn]
            counts[1:] = torch.tensor(count_terms(filter(None, shares)))
            all_have_pairs = n_shares <= self.alignment.batch_size
            encoder = encoder_of(self.accelerator.unwrap_model(self.model_wrapped, keep_torch_compile=False))
            parts = self.alignment.loss.parts(encoder, shares, self.accelerator, all_have_pairs)
            for batch, pairs, part in zip(batches, shares, parts):
                if pairs:
                    batch[_PAIRS] = {**pairs, PART: part}
        return batches, self.accelerator.reduce(counts, "sum")

    def _begin_gradients(self, n_batches: int) -> LossGradients:
        alignment: Any = self.alignment
        encoder = encoder_of(self.accelerator.unwrap_model(self.model))
        with in_evaluation_mode(encoder):  # (without dropout no random number is drawn)
            shared = parameters_behind(encoder, alignment.loss.layers[-1])
        parameters = [parameter for name, parameter in encoder.named_parameters() if name in shared]
        return LossGradients(["task_loss", *alignment.loss.weights.losses()], parameters, n_batches)

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Any]:
        """The task loss and, in training, the weighted losses of the pairs: this batch's share of the step's means.

        `num_items_in_batch` [4] has the labels, links, English words and pairs of the step; None outside of training.
        """
        pairs = inputs.pop(_PAIRS, None)
        n_labels = inputs.pop(_LABELS, None)
        if n_labels is None:
            n_labels = _n_labels(inputs)
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
        loss = torch.where(
            torch.as_tensor(n_labels, device=loss.device) > 0, loss, 0.0
        )  # (a mean over nothing is not a number)
        if model.training and num_items_in_batch is not None:
            # Gradients are averaged over processes, sums are wanted.
            loss = loss * (n_labels / num_items_in_batch[0].clamp(min=1) * self.accelerator.num_processes)
            losses = {"task_loss": loss}
            if self.alignment and pairs is not None:
                encoder = encoder_of(self.accelerator.unwrap_model(model, keep_torch_compile=False))
                terms = self.alignment.loss(encoder, pairs, self.accelerator.autocast, pairs.pop(PART, None))
                losses |= terms.means(num_items_in_batch[1:], self.accelerator.num_processes)
                self._by_language.add(terms, pairs)
                loss = self.alignment.loss.weights.total(losses, loss)
            self._meter.add(losses)
            if self._gradients:
                self._gradients.add(losses)
                if not self._gradients.n_missing:
                    self.log(self._gradients.read(self.accelerator))
                    self._gradients = None
        return (loss, outputs) if return_outputs else loss


def _n_labels(batch: Mapping[str, Any]) -> Tensor | int:
    """What a task's loss is a mean over: the labels that count, or the examples where no column is called that."""
    if "labels" in batch:
        return batch["labels"].ne(-100).sum()
    return len(next(iter(batch.values())))


def _first_rows(batch: Mapping[str, Any], n_rows: int) -> dict[str, Any]:
    """The first rows of a batch; of one without any, a row that counts as nothing."""
    size = len(next(iter(batch.values())))
    has_rows = {
        name for name, value in batch.items() if isinstance(value, Tensor) and value.dim() and len(value) == size
    }
    first = {name: value[: max(n_rows, 1)] if name in has_rows else value for name, value in batch.items()}
    return first if n_rows else {**first, _LABELS: 0}
