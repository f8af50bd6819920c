"""The training arguments of the scripts."""

import os
from dataclasses import dataclass, fields
from inspect import signature
from typing import Any, ClassVar

import torch
from torch.utils.checkpoint import checkpoint
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.integrations import get_reporting_integration_callbacks
from transformers.training_args import ParallelMode
from transformers.utils import is_liger_kernel_available

from utils.core.arguments import arg, check_ranges, default_of
from utils.core.checked_commands import ONLY_READ
from utils.core.errors import InputError


@dataclass
class ScriptTrainingArguments(TrainingArguments):
    """What all scripts that train do differently from `TrainingArguments`."""

    # Arguments of `TrainingArguments` that change what is learned (see `utils.core.arguments.hyperparameters`). The seed
    # is not one: runs that differ in it alone are repetitions.
    HYPERPARAMETERS: ClassVar = (
        "learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps",
        "total_train_batch_size", "dataloader_drop_last", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "weight_decay",
        "optim", "optim_args", "optim_target_modules", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm",
        "label_smoothing_factor", "neftune_noise_alpha", "bf16", "fp16",
    )  # fmt: skip

    # Arguments of `TrainingArguments` that the scripts cannot honor, and why.
    WITHOUT_USE: ClassVar = {
        **dict.fromkeys(
            (
                "batch_eval_metrics",
                "prediction_loss_only",
                "label_names",
                "eval_do_concat_batches",
                "include_for_metrics",
            ),
            "predictions of all examples are scored at once",
        ),
        "auto_find_batch_size": "a run has one batch size, which is recorded, compared and resumed",
        "length_column_name": "rows have a column `length` of their own",
    }

    # The ranges of inherited numbers.
    BOUNDS: ClassVar = {
        **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size"), {"at_least": 1, "at_most": 100_000}),
        **dict.fromkeys(("seed", "data_seed"), {"at_least": 0, "at_most": 2**32 - 1}),
        **dict.fromkeys(("adam_beta1", "adam_beta2"), {"at_least": 0, "below": 1}),
        **dict.fromkeys(("logging_steps", "eval_steps", "save_steps", "adam_epsilon"), {"above": 0}),
        **dict.fromkeys(
            ("learning_rate", "warmup_steps", "weight_decay", "max_grad_norm", "neftune_noise_alpha", "eval_delay",
             "save_total_limit"), {"at_least": 0}
        ),
        **dict.fromkeys(
            ("gradient_accumulation_steps", "eval_accumulation_steps", "torch_empty_cache_steps",
             "dataloader_prefetch_factor", "ddp_bucket_cap_mb", "ddp_timeout"), {"at_least": 1}
        ),
        **dict.fromkeys(("max_steps", "local_rank"), {"at_least": -1}),
        "num_train_epochs": {"above": 0, "at_most": 10**6},
        "label_smoothing_factor": {"at_least": 0, "at_most": 1},
        "dataloader_num_workers": {"at_least": 0, "at_most": 256},
    }  # fmt: skip

    output_dir: str | None = arg(
        None,
        help="Folder for the model, its card, checkpoints, results and run.json. Default: one in runs/ that is named "
        "after the script, the model and the languages.",
    )
    do_train: bool = arg(False, help="Train.")
    do_eval: bool = arg(False, help="Evaluate on the validation data.")
    do_predict: bool = arg(False, help="Evaluate on the test data (scripts for tasks).")
    train_sampling_strategy: str = arg(
        "group_by_length",
        help="`group_by_length`: batches of inputs of similar length, in random order, which is faster (less padding); "
        "`random`: as in the paper.",
        choices=["group_by_length", "random", "sequential"],
        hyperparameter=True,
    )
    on_nonfinite: str = arg(
        "stop",
        help="What to do when the loss or a gradient is not finite: `stop` before the step, with the last checkpoint kept, "
        "or `warn` and go on.",
        choices=["stop", "warn"],
    )
    logging_nan_inf_filter: bool = arg(False, help="Log the mean of other steps instead of a loss that is not finite.")
    logging_steps: float = arg(50, help="Log every N steps.")
    resume_from_checkpoint: str | None = arg(
        None,
        help="Go on with a run that was stopped: `true` takes the last complete checkpoint in --output_dir, or begins at the "
        "beginning if there is none; or name the folder of a checkpoint.",
    )
    eval_on_start: bool = arg(
        False,
        help="Also evaluate before the first step: the numbers before training, for --do_eval or an --eval_strategy.",
    )
    dataloader_num_workers: int | None = arg(  # type: ignore[assignment]  # (an int after __post_init__)
        None,
        help="Processes that make batches while the device works. Default: two beside an accelerator, none on a CPU.",
    )
    ddp_find_unused_parameters: bool | None = arg(
        False, help="Look for parameters without gradient in every step; there are none here."
    )

    def __post_init__(self) -> None:
        self.assumes_output_dir = self.output_dir is None
        if self.dataloader_num_workers is None:
            self.dataloader_num_workers = 2 if torch.accelerator.is_available() and not self.use_cpu else 0
        if self.greater_is_better is None and self.metric_for_best_model:
            # (`TrainingArguments` takes what does not end in "loss" for better if greater, also `alignment_loss_hi`.)
            self.greater_is_better = "loss" not in self.metric_for_best_model.split("_")
        super().__post_init__()
        # (`accelerate launch` also sets the precision. What is recorded, compared and resumed is what is used.)
        self.bf16, self.fp16 = (self.mixed_precision == name for name in ("bf16", "fp16"))
        self._check_that_it_works()
        # Pinning serves the copy to an accelerator; without one it is only a warning in every run.
        self.dataloader_pin_memory = self.dataloader_pin_memory and self.device.type != "cpu"

    def _check_that_it_works(self) -> None:
        """Raise an error now for what `Trainer` would refuse only after the data are read."""
        check_ranges(self)
        for item in fields(self):
            if item.name in self.WITHOUT_USE and getattr(self, item.name) != default_of(item):
                raise InputError(f"--{item.name} does not work here: {self.WITHOUT_USE[item.name]}; omit it.")
        for callback in get_reporting_integration_callbacks(self.report_to):
            callback()
        is_one_process = self.parallel_mode != ParallelMode.DISTRIBUTED and not os.environ.get(ONLY_READ)
        if self.fsdp and is_one_process:
            raise InputError(
                "--fsdp needs several processes: start the script by `accelerate launch --num_processes N`."
            )
        if self.use_liger_kernel and not is_liger_kernel_available():
            raise InputError("--use_liger_kernel needs liger-kernel; pip install liger-kernel, or omit it.")
        known = {*signature(checkpoint).parameters, "early_stop", "every_n_layers", "offload"}
        if unknown := set(self.activation_checkpointing_kwargs or {}) - known:
            raise InputError(
                f"--activation_checkpointing_kwargs has no {min(unknown)}; it has {', '.join(sorted(known))}."
            )
        stand_in: Any = torch.nn.Linear(1, 1)
        Trainer.get_optimizer_cls_and_kwargs(self, stand_in)
        kwargs: Any = self.lr_scheduler_kwargs
        optimizer = torch.optim.SGD(stand_in.parameters(), self.learning_rate)
        get_scheduler(self.lr_scheduler_type, optimizer, 1, 2, scheduler_specific_kwargs=kwargs)

    @property
    def total_train_batch_size(self) -> int:
        """Examples of an optimizer step, over all devices."""
        return self.train_batch_size * self.world_size * self.gradient_accumulation_steps

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "total_train_batch_size": self.total_train_batch_size}

    def assume_output_dir(self, name: str) -> dict[str, str]:
        """Set `output_dir` to `runs/NAME` if the command line does not name it; returns what was assumed, by argument."""
        if not self.assumes_output_dir:
            return {}
        self.output_dir = f"runs/{name}"
        return {"--output_dir": self.output_dir}

    def __getstate__(self) -> dict[str, Any]:
        """Without the token: Trainer pickles these arguments into every checkpoint, which --hub_strategy can push."""
        return {**self.__dict__, "hub_token": None}


@dataclass
class AlignTrainingArguments(ScriptTrainingArguments):
    """The paper's settings are the defaults; everything else is as in `TrainingArguments`."""

    WITHOUT_USE: ClassVar = {
        **ScriptTrainingArguments.WITHOUT_USE,
        "label_smoothing_factor": "an adjustment has no labels",
        "include_num_input_tokens_seen": "an input has two sides, of which Trainer counts neither",
        **dict.fromkeys(
            ("bf16_full_eval", "fp16_full_eval"), "held-out pairs are measured as the model is trained (--bf16)"
        ),
        **dict.fromkeys(
            ("eval_accumulation_steps", "eval_use_gather_object"),
            "vectors are taken from the device after every batch",
        ),
    }

    learning_rate: float = arg(5e-5, help="Peak learning rate.")
    num_train_epochs: float = arg(1, help="Passes over the pairs.")
    per_device_train_batch_size: int = arg(32, help="Pairs per step and device.")
    per_device_eval_batch_size: int = arg(32, help="Pairs measured at once per device.")
    adam_beta2: float = arg(0.98, help="Second beta of Adam.")
    adam_epsilon: float = arg(1e-9, help="Epsilon of Adam.")
    max_grad_norm: float = arg(0.0, help="Clip gradients to this norm (0: do not clip).")
    lr_scheduler_type: str = arg("constant_with_warmup", help="Schedule of the learning rate.")
    warmup_steps: float = arg(0.1, help="Linear warm-up: steps, or below 1 a share of all.")

    @property
    def trains(self) -> bool:
        """Whether the encoder is trained: unless the command line only asks to measure. (An --eval_strategy turns do_eval on.)"""
        return self.do_train or not self.do_eval or self.eval_strategy != "no"
