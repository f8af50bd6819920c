"""What the trainers share: training with a checkpoint on interruption, saving, the order of the examples."""

from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import Trainer

from utils.alignment.sampler import LengthGroupedBatches
from utils.core.columns import column_array
from utils.models.adapters import save_adapter
from utils.training.interruption import SaveWhenInterrupted


def train_and_save(trainer: Trainer, checkpoint: str | None) -> None:
    """Train, from a checkpoint if one is given; save the model, the metrics and the trainer's state.

    Raises:
        Interrupted: on Ctrl-C or SIGTERM, with a checkpoint of the last step saved.
    """
    trainer.add_callback(interruption := SaveWhenInterrupted())
    try:
        metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
    finally:
        interruption.restore()
    trainer.save_model(_internal_call=True)  # (it would push an incomplete folder; `share` pushes at the end)
    trainer.log_metrics("train", metrics)
    trainer.save_metrics("train", metrics)
    trainer.save_state()


def save_with_tokenizer(
    trainer: Trainer,
    save: Callable[[Any, str, dict[str, torch.Tensor] | None], None],
    output_dir: str | None,
    state_dict: dict[str, torch.Tensor] | None,
) -> None:
    """Save a trainer's model, or only its adapter if it has one, and the tokenizer.

    The pickled arguments that `Trainer` saves beside them are left out: `run.json` has them in a readable form.

    Args:
        trainer: whose model is saved, if this process is one that saves.
        save: `save_encoder` or `save_task_model`.
        output_dir: folder; by default that of the run.
        state_dict: weights gathered from several processes; by default the model's own.
    """
    if not trainer.args.should_save:
        return
    folder = str(output_dir or trainer.args.output_dir)
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    (save_adapter if isinstance(model, PeftModel) else save)(model, folder, state_dict)
    if trainer.processing_class is not None:
        trainer.processing_class.save_pretrained(folder)


def length_grouped_sampler(trainer: Trainer, rows: Dataset | None) -> LengthGroupedBatches | None:
    """The sampler of `--train_sampling_strategy group_by_length` for rows with a column `length`, else None."""
    args = trainer.args
    if args.train_sampling_strategy != "group_by_length" or not isinstance(rows, Dataset):
        return None
    batch_size = args.train_batch_size * trainer.accelerator.num_processes * args.gradient_accumulation_steps
    seed = args.seed if args.data_seed is None else args.data_seed
    return LengthGroupedBatches(column_array(rows, "length"), batch_size, seed)
