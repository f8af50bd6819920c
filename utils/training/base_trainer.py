"""What the trainers share: component losses in the logs, batches of similar length, checkpoints that lose nothing."""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.data_loader import BatchSamplerShard, DataLoaderShard, SkipBatchSampler
from datasets import Dataset
from peft import PeftModel
from torch.utils.data import Sampler
from transformers import ProgressCallback, Trainer, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy

from utils.alignment.language_sampling import LanguageBandit
from utils.alignment.sampler import LengthGroupedBatches
from utils.core.columns import column_array
from utils.core.errors import InputError, first_line, input_errors
from utils.core.files import RESULTS, read_json_object, set_aside, write_json
from utils.evaluation.vectors import Autocast
from utils.models.adapters import save_adapter
from utils.training.checkpoints import RUN_FILE, own_checkpoint, run_identity
from utils.training.language_losses import LanguageLosses
from utils.training.precision import warn_if_bf16_is_slower
from utils.training.step_progress import StepProgress


logger = logging.getLogger(__name__)


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


class EpochOfSampler(TrainerCallback):
    """Tells a sampler the epoch: where several processes resume within one, `Trainer` does not reach it."""

    def __init__(self, sampler: LengthGroupedBatches) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.sampler.set_epoch(int(state.epoch or 0))


class ComponentTrainer(Trainer):
    """A `Trainer` of a loss that is a sum of others, each logged under its own name.

    A loss or gradient that is not finite stops the training before the step (`--on_nonfinite`). Checkpoints record to which
    run they belong, and are not taken for another one; what earlier runs have left in the output folder is moved aside when
    there is something to put there.
    """

    # compute_loss divides by the counts of the whole accumulated batch itself.
    loss_is_scaled_for_ga = True
    # Saves a whole model in a folder: (model, folder, weights gathered from several processes or None).
    save_weights: Callable[[Any, str, dict[str, torch.Tensor] | None], None]
    # Of the pairs that are aligned, and the loss that is logged for each.
    languages: Sequence[str] = ()
    loss_of_language = "alignment_loss"
    # What a row of the training data is called in messages.
    row_name = "examples"
    # With --language_sampling ucb, what draws the language of each step.
    bandit: LanguageBandit | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with input_errors("These arguments do not work together", ValueError, ImportError, RuntimeError):
            super().__init__(*args, **kwargs)
        if self.pop_callback(ProgressCallback):
            self.add_callback(StepProgress)
        self._meter = LossMeter()
        self._by_language = LanguageLosses((), self.accelerator)
        self._step_loss: torch.Tensor | float = 0.0
        self._results: dict[str, float] = {}
        # Of the steps before the checkpoint from which this run resumes: their number, and the sum of their losses.
        self._steps_before, self._loss_before = 0, 0.0
        # The checkpoint whose random states are still to be set.
        self._resumed_from: str | None = None
        # The names of what the first checkpoint moves aside of earlier runs.
        self._left_by_others: list[str] = []

    def identity_parts(self) -> dict[str, Any]:
        """What the losses add to the `run_identity` of checkpoints."""
        return {}

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any) -> Any:
        self._check_rows()
        self._meter = LossMeter()
        self._by_language = LanguageLosses(self.languages, self.accelerator, self.loss_of_language)
        self._identity = run_identity(self, **self.identity_parts())
        # (Results are else kept until there are others. But a push would put them beside the new weights.)
        pushes = self.args.push_to_hub and self.args.hub_strategy != HubStrategy.END
        self._left_by_others = ["checkpoint-*"] * (not resume_from_checkpoint) + [*RESULTS] * pushes
        self._steps_before, self._loss_before = 0, 0.0
        self._resumed_from = resume_from_checkpoint
        if resume_from_checkpoint:
            self._resumed_from = resume_from_checkpoint = own_checkpoint(
                resume_from_checkpoint, self.args, self._identity
            )
            self._continue_from(Path(resume_from_checkpoint, RUN_FILE))
        if self.args.bf16 and self.args.device.type == "cpu":
            self._compare_precisions()
        return super().train(resume_from_checkpoint, **kwargs)

    def _compare_precisions(self) -> None:
        """Warn if bfloat16 is slower here than fp32, for a batch of medium length."""
        rows = self.train_dataset
        if not isinstance(rows, Dataset) or "length" not in rows.column_names:
            return
        size = min(self.args.train_batch_size, len(rows))
        order = np.argsort(column_array(rows, "length").reshape(len(rows), -1).sum(axis=1), kind="stable")
        begin = (len(rows) - size) // 2
        model: Any = self.model
        collate = self._get_collator_with_removed_columns(self.data_collator)
        batch = collate([rows[k] for k in order[begin : begin + size].tolist()])
        loss = partial(self._loss_alone, batch)
        warn_if_bf16_is_slower(model, loss, self.accelerator.autocast, f"{size} {self.row_name}")

    def _loss_alone(self, batch: Mapping[str, torch.Tensor], autocast: Autocast) -> torch.Tensor:
        """The loss of a batch, outside of training."""
        model: Any = self.model
        with autocast():
            return model(**batch).loss

    def _continue_from(self, file: Path) -> None:
        """Read back what `_save` has kept of this trainer in a checkpoint."""
        remedy = "remove that checkpoint"
        before = read_json_object(file, remedy)
        try:
            # (JSON has no number for a loss that is not finite.)
            self._steps_before, loss = int(before["steps"]), before["loss"]
            self._loss_before = math.nan if loss is None else float(loss)
            for name, part in self._kept().items():
                part.resume(before.get(name, part.state()))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"The file {file} is damaged ({first_line(error)}); {remedy}.") from None

    def _n_own_rows(self) -> int | None:
        """How many rows this process keeps of the batch that was read last, if it is an epoch's last one and has others.

        Accelerate gives all processes batches of one size: where an epoch's rows do not fill the last ones, it appends rows
        from the epoch's beginning (`even_batches`). A step that used them would not be that of one process.
        """
        state = self.accelerator.gradient_state
        loader: Any = state.active_dataloader
        if not state.end_of_dataloader or not isinstance(loader, DataLoaderShard):
            return None
        # (Not by the state's `remainder`: in an epoch that is resumed in its middle it is unknown.)
        batches: Any = loader.batch_sampler
        while isinstance(batches, SkipBatchSampler):
            batches = batches.batch_sampler
        if not isinstance(batches, BatchSamplerShard) or batches.drop_last or not batches.even_batches:
            return None
        size = batches.batch_size // (batches.num_processes if batches.split_batches else 1)
        n_last = len(batches.batch_sampler.sampler) % (size * batches.num_processes)
        n_rows = min(max(n_last - batches.process_index * size, 0), size)
        return None if not n_last or n_rows == size else n_rows

    def _check_rows(self) -> None:
        """Raise `InputError` if --dataloader_drop_last leaves no batch."""
        batch_size = self.args.train_batch_size * self.args.world_size
        if (
            self.args.dataloader_drop_last
            and isinstance(self.train_dataset, Sized)
            and len(self.train_dataset) < batch_size
        ):
            raise InputError(
                f"--dataloader_drop_last leaves nothing of {len(self.train_dataset)} rows in batches of {batch_size}; omit it, "
                "or choose a smaller --per_device_train_batch_size."
            )

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        self._step_loss = self._step_loss + loss
        return loss

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        """The gradient's norm; with the loss of the optimizer step's batches it must be finite."""
        norm = super()._get_grad_norm(*args, **kwargs)
        loss, self._step_loss = float(self._step_loss), 0.0
        # (In fp16, steps whose gradients overflow are skipped.)
        overflows = getattr(self.accelerator, "scaler", None) is not None
        if math.isfinite(loss) and (norm is None or overflows or math.isfinite(norm)):
            return norm
        optimizer: Any = self.optimizer
        rate, step = optimizer.param_groups[0]["lr"], self.state.global_step + 1
        found = (
            f"Step {step:,}: loss {loss:.4g}, norm of the gradient {float(norm or 0):.4g}, learning rate {rate:.3g}"
        )
        if self._stops:
            raise InputError(
                f"{found}. Training stopped before this step, and nothing was saved over an earlier model; lower --learning_rate, "
                "or check model and data. --on_nonfinite warn goes on."
            )
        logger.warning(f"{found}: not finite.")
        return norm

    @property
    def _stops(self) -> bool:
        return getattr(self.args, "on_nonfinite", "stop") == "stop"

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "train_loss" in logs:  # a mean over the steps since the checkpoint from which this run resumed
            n_steps, before = self.state.global_step, self._steps_before
            logs["train_loss"] = (self._loss_before + logs["train_loss"] * (n_steps - before)) / max(n_steps, 1)
            logs |= {f"train_{name}": loss for name, loss in self._by_language.of_run().items()}
        if "loss" in logs:  # a step's log, not an evaluation's or the summary at the end
            components = {**self._meter.read(self.accelerator), **self._by_language.since_last_log()}
            logs = {"loss": logs.pop("loss"), **components, **logs}
            self._meter = LossMeter()
        super().log(logs, start_time)

    def save_metrics(self, split: str, metrics: dict[str, float], combined: bool = True) -> None:
        """As `Trainer`'s, atomically, in valid JSON, and without numbers of earlier runs."""
        if not self.is_world_process_zero():
            return
        folder = Path(str(self.args.output_dir))
        if not self._results:
            set_aside(folder, RESULTS)
        self._results |= metrics
        write_json(folder / f"{split}_results.json", metrics)
        if combined:
            write_json(folder / "all_results.json", self._results)

    def save_state(self) -> None:
        """As `Trainer`'s, atomically and in valid JSON."""
        if self.args.should_save:
            write_json(Path(str(self.args.output_dir), TRAINER_STATE_NAME), asdict(self.state))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if self._left_by_others and Path(output_dir or "").name.startswith(PREFIX_CHECKPOINT_DIR):
            if self.args.should_save:
                set_aside(Path(str(self.args.output_dir)), self._left_by_others)
            self._left_by_others = []
            self.accelerator.wait_for_everyone()  # before others write into the folder
        self._by_language.collect()
        super().save_model(output_dir, _internal_call)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Save the model, or only its adapter if it has one, and the tokenizer.

        Not the arguments, which `Trainer` would pickle: `run.json` has them in a readable form.
        """
        if not self.args.should_save:
            return
        folder = str(output_dir or self.args.output_dir)
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        weights = (state_dict or dict(model.named_parameters())).items()
        if self._stops and (bad := next((name for name, weight in weights if not weight.isfinite().all()), None)):
            raise InputError(
                f"The weights {bad} are not finite and were not saved; lower --learning_rate, or check the data."
            )
        save = save_adapter if isinstance(model, PeftModel) else self.save_weights
        save(model, folder, state_dict)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)
        if Path(folder).name.startswith(PREFIX_CHECKPOINT_DIR):
            loss = self._loss_before + self._total_loss_scalar + self._tr_loss.item()
            progress = {name: part.state() for name, part in self._kept().items()}
            progress |= {"steps": self.state.global_step, "loss": loss}
            write_json(Path(folder, RUN_FILE), {"run": self._identity, **progress})

    def _kept(self) -> dict[str, Any]:
        """What checkpoints keep of this trainer itself, by name: objects with `state` and `resume`."""
        return {"by_language": self._by_language} | ({"bandit": self.bandit} if self.bandit else {})

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        self.remove_callback(EpochOfSampler)
        sampler = self._own_sampler()
        if sampler is None:
            return super()._get_train_sampler(train_dataset)
        self.add_callback(EpochOfSampler(sampler))
        return sampler

    def _own_sampler(self) -> LengthGroupedBatches | None:
        """With `--train_sampling_strategy group_by_length`, by the training rows' column `length`; else None."""
        if self.args.train_sampling_strategy != "group_by_length" or not isinstance(self.train_dataset, Dataset):
            return None
        return LengthGroupedBatches(*self._lengths_and_batches())

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[dict[str, Any]], Any]:
        """As `Trainer`'s; after it, random numbers go on where the checkpoint was saved (`Trainer` sets them a little later)."""
        found = super().get_batch_samples(*args, **kwargs)
        self._load_rng_state(self._resumed_from)
        return found

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Once for each resumed run."""
        if self._resumed_from:
            super()._load_rng_state(checkpoint)
            self._resumed_from = None

    def _lengths_and_batches(self) -> tuple[np.ndarray, int, int]:
        """The lengths of the training rows, the rows of an optimizer step, and the seed of their order."""
        # (The data set of the sampler may have lost the columns that are not inputs of the model, among them the length.)
        args, rows = self.args, self.train_dataset
        batch_size = args.train_batch_size * self.accelerator.num_processes * args.gradient_accumulation_steps
        return column_array(rows, "length"), batch_size, self._order_seed

    @property
    def _order_seed(self) -> int:
        return self.args.seed if self.args.data_seed is None else self.args.data_seed
