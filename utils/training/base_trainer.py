"""What the trainers share: component losses in the logs, batches of similar length, checkpoints that lose nothing."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from datasets import Dataset
from peft import PeftModel
from torch.utils.data import Sampler
from transformers import Trainer

from utils.alignment.sampler import LengthGroupedBatches
from utils.core.columns import column_array
from utils.models.adapters import save_adapter


class LossMeter:
    """Means of the component losses since the last log, and pairs per second. Adding does not wait for the device."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._n_steps: Counter[str] = Counter()
        self._n_pairs = 0
        self._since = time.perf_counter()

    def begin_step(self, *names: str) -> None:
        """Begin an optimizer step that has these losses; what is added next belongs to its batches."""
        self._n_steps.update(names)

    def add(self, losses: Mapping[str, torch.Tensor], n_pairs: int = 0) -> None:
        """Add one batch's share of the losses of its optimizer step."""
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, 0) + loss.detach()
        self._n_pairs += n_pairs

    def read(self, accelerator: Accelerator) -> dict[str, float]:
        """Mean losses over processes and over the optimizer steps that had them, and `pairs_per_second` if counted."""
        pace = {"pairs_per_second": round(self._n_pairs / (time.perf_counter() - self._since), 2)}
        sums = {name: self._sums.get(name, torch.zeros((), device=accelerator.device)) for name in self._n_steps}
        means = {name: accelerator.reduce(sums[name], "mean").item() / n for name, n in self._n_steps.items()}
        return {**means, **(pace if self._n_pairs else {})}


class ComponentTrainer(Trainer):
    """A `Trainer` of a loss that is a sum of others, each logged under its own name."""

    # compute_loss divides by the counts of the whole accumulated batch itself.
    loss_is_scaled_for_ga = True
    # Saves a whole model in a folder: (model, folder, weights gathered from several processes or None).
    save_weights: Callable[[Any, str, dict[str, torch.Tensor] | None], None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._meter = LossMeter()

    def train(self, *args: Any, **kwargs: Any) -> Any:
        self._meter = LossMeter()
        return super().train(*args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:  # a step's log, not an evaluation's or the summary at the end
            logs = {"loss": logs.pop("loss"), **self._meter.read(self.accelerator), **logs}
            self._meter = LossMeter()
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Save the model, or only its adapter if it has one, and the tokenizer.

        Not the arguments, which `Trainer` would pickle: `run.json` has them in a readable form.
        """
        if not self.args.should_save:
            return
        folder = str(output_dir or self.args.output_dir)
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        save = save_adapter if isinstance(model, PeftModel) else self.save_weights
        save(model, folder, state_dict)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        """With `--train_sampling_strategy group_by_length`, by the training rows' column `length`."""
        # (`train_dataset` may have lost the columns that are not inputs of the model, among them the length.)
        args, rows = self.args, self.train_dataset
        if args.train_sampling_strategy != "group_by_length" or not isinstance(rows, Dataset):
            return super()._get_train_sampler(train_dataset)
        batch_size = args.train_batch_size * self.accelerator.num_processes * args.gradient_accumulation_steps
        seed = args.seed if args.data_seed is None else args.data_seed
        return LengthGroupedBatches(column_array(rows, "length"), batch_size, seed)
