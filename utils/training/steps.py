"""What both trainers share: training and saving, the order of the examples, the size of a step."""

from collections.abc import Callable

import torch
from datasets import Dataset
from peft import PeftModel
from torch import nn
from transformers import Trainer

from utils.alignment.losses import AlignmentLoss
from utils.alignment.pairs import AlignmentCollator
from utils.alignment.reference_vectors import with_reference_vectors
from utils.alignment.sampler import LengthGroupedBatches
from utils.core.columns import column_array
from utils.models.adapters import save_adapter
from utils.training.interruption import SaveWhenInterrupted


IDS_OF_PAIRS = "source_input_ids,english_input_ids"


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


def save_with_tokenizer(
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


def length_grouped_sampler(trainer: Trainer, rows: Dataset | None) -> LengthGroupedBatches | None:
    """The sampler of `--train_sampling_strategy group_by_length` for rows with a column `length`."""
    args = trainer.args
    if args.train_sampling_strategy != "group_by_length" or not isinstance(rows, Dataset):
        return None
    seed = args.seed if args.data_seed is None else args.data_seed
    return LengthGroupedBatches(column_array(rows, "length"), step_size(trainer), seed)


def step_size(trainer: Trainer) -> int:
    """Rows in an optimizer step, over all processes and accumulated batches."""
    args = trainer.args
    return args.train_batch_size * trainer.accelerator.num_processes * args.gradient_accumulation_steps


def n_steps(trainer: Trainer) -> int:
    """Optimizer steps of the whole training."""
    in_epoch = max(1, len(trainer.train_dataset) // step_size(trainer))
    return trainer.args.max_steps if trainer.args.max_steps > 0 else int(in_epoch * trainer.args.num_train_epochs)


def seen_by_reference(trainer: Trainer, pairs: Dataset, loss: AlignmentLoss, collator: AlignmentCollator) -> Dataset:
    """The pairs with what the frozen model makes of them, which is asked once instead of whenever a pair is drawn."""
    with trainer.args.main_process_first(desc="asking the frozen model"):
        return with_reference_vectors(pairs, loss, collator, trainer.accelerator)
