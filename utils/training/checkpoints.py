"""Checkpoints: to which run one belongs, and which one a run resumes from."""

import hashlib
import inspect
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from datasets import Dataset
from peft import PeftModel
from torch import nn
from transformers import Trainer, TrainingArguments

from utils.alignment.losses import AlignmentLoss
from utils.core.errors import InputError
from utils.core.files import check_output_dir, json_values, lock_folder, read_json_object
from utils.models.encoders import layout_of
from utils.models.layers import encoder_of
from utils.training.arguments import ScriptTrainingArguments
from utils.training.whole_checkpoints import RUN_FILE, is_whole, step_checkpoints, whole_checkpoints


logger = logging.getLogger(__name__)

# The parts of `run_identity` by which the best checkpoint is found. (A run that looks for none, and earlier ones, have not kept
# them: then there is nothing to compare.)
_OF_SELECTION = ("metric_for_best_model", "greater_is_better", "evaluation data")


def checkpoint_to_resume(training: TrainingArguments, overwrite_output_dir: bool) -> str | None:
    """The checkpoint of `--resume_from_checkpoint`: a folder, or for `true` the last complete one in the output folder.

    None if there is no complete one, or none is asked for: the run begins at the beginning. Incomplete ones, which a killed
    run leaves, are passed over with a warning. Whether a checkpoint belongs to this run is known only when the data are
    read (`own_checkpoint`). The output folder is locked.

    Raises:
        InputError: if the folder that is named is no complete checkpoint; if the run begins at the beginning and there are
            complete checkpoints or other results in the output folder; or if another process writes into it.
    """
    output_dir, resume = Path(str(training.output_dir)), str(training.resume_from_checkpoint or "false")
    if resume.lower() not in ("true", "false"):
        _check_named(resume, output_dir, overwrite_output_dir)
        return resume
    lock_folder(output_dir)
    whole = whole_checkpoints(output_dir)
    incomplete = [folder for folder in step_checkpoints(output_dir) if folder not in whole]
    goes_on = bool(whole) and resume.lower() == "true"
    if not goes_on:
        remedy = "add --resume_from_checkpoint true to go on from it" if whole else ""
        check_output_dir(output_dir, overwrite_output_dir, [folder.name for folder in incomplete], remedy)
    if incomplete:
        names = " ".join(map(str, incomplete))
        then = f"goes on from {whole[0].name}" if goes_on else "begins at the beginning"
        logger.warning(f"Passed over, since it is incomplete: {names}. The run {then}.")
    elif resume.lower() == "true" and not whole:
        logger.warning(f"There is no checkpoint in {output_dir}. The run begins at the beginning.")
    return str(whole[0]) if goes_on else None


def _check_named(checkpoint: str, output_dir: Path, overwrite_output_dir: bool) -> None:
    """Raise `InputError` if a checkpoint is not complete, or of another output folder than this one, which is not empty."""
    if not is_whole(Path(checkpoint)):
        problem = f"There is no checkpoint {checkpoint}"
        if os.path.isdir(checkpoint):
            problem = f"The checkpoint {checkpoint} is incomplete (model, optimizer, scheduler, random state, trainer_state.json)"
        raise InputError(f"{problem}; check the path, or give true for the last complete one.")
    if Path(checkpoint).resolve().parent != output_dir.resolve():
        check_output_dir(output_dir, overwrite_output_dir)
    lock_folder(output_dir)


def own_checkpoint(checkpoint: str, args: TrainingArguments, identity: Mapping[str, Any]) -> str:
    """The checkpoint if it belongs to the run of this `run_identity`; with `--resume_from_checkpoint true` also an earlier one.

    Raises:
        InputError: if there is none, with the first differences.
    """
    folders, differences = [Path(checkpoint)], ""
    if str(args.resume_from_checkpoint).lower() == "true":
        folders = whole_checkpoints(Path(str(args.output_dir)))
    for folder in folders:
        if not (differences := _differences(folder, identity)):
            return str(folder)
        if len(folders) > 1:
            logger.warning(f"{folder} is passed over: it belongs to another run ({differences}).")
    raise InputError(
        f"{folders[-1]} belongs to another run ({differences}); give the arguments of that run, or start a new one by "
        "--overwrite_output_dir, without --resume_from_checkpoint."
    )


def _differences(checkpoint: Path, identity: Mapping[str, Any]) -> str:
    """How the run that a checkpoint belongs to differs from another; empty if it does not."""
    if not (checkpoint / RUN_FILE).exists():
        return f"it has no {RUN_FILE}"
    then = read_json_object(checkpoint / RUN_FILE, "remove that checkpoint").get("run")
    if not isinstance(then, dict):
        return f"its {RUN_FILE} is damaged"
    compared = [name for name in identity if name in then or name not in _OF_SELECTION]
    names = [name for name in compared if then.get(name) != identity[name]]
    # (Names with spaces are of hashes.)
    return "; ".join(
        f"another {name}" if " " in name else f"{name} {then.get(name)}, now {identity[name]}" for name in names[:2]
    )


def run_identity(trainer: Trainer, **parts: Any) -> dict[str, Any]:
    """What makes a training what it is: hyperparameters, seeds, processes, model, data, and what a trainer adds (`parts`)."""
    args, model = trainer.args, trainer.accelerator.unwrap_model(trainer.model)
    names = (
        *ScriptTrainingArguments.HYPERPARAMETERS,
        "train_sampling_strategy",
        "seed",
        "data_seed",
    )
    settings = {name: getattr(args, name, None) for name in names}  # (plain TrainingArguments have not all of them)
    trained = [(name, *parameter.shape) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if isinstance(model, PeftModel):
        adapter: Any = model.peft_config["default"]
        settings |= {"lora_rank": adapter.r, "lora_alpha": adapter.lora_alpha}
    return json_values(
        {
            **{name: getattr(value, "value", value) for name, value in settings.items()},
            "processes": args.world_size,
            "base model": _hash(model_sums(encoder_of(model)), type(model).__name__),
            "set of trained parameters": _hash(trained),
            "training data": rows_hash(trainer.train_dataset),
            **_selection(trainer),
            **parts,
        }
    )


def _selection(trainer: Trainer) -> dict[str, Any]:
    """By what checkpoints are compared, if they are (also by a schedule that waits for a plateau): the best so far is kept."""
    args, data = trainer.args, trainer.eval_dataset
    if args.metric_for_best_model is None:
        return {}
    # (Trainer reads both names.)
    metric = f"eval_{args.metric_for_best_model.removeprefix('eval_')}"
    hashes = {name: rows_hash(rows) for name, rows in data.items()} if isinstance(data, dict) else rows_hash(data)
    return dict(zip(_OF_SELECTION, (metric, args.greater_is_better, hashes)))


def loss_identity(loss: AlignmentLoss) -> dict[str, Any]:
    """The part of `run_identity` that an alignment loss adds."""
    objective, reference = loss.objective, loss.reference_model
    code = inspect.getsource(type(objective)), inspect.getsource(AlignmentLoss)
    return {
        "alignment_objective": type(objective).__name__,
        **vars(objective),
        "alignment_layer": list(loss.layers),
        "alignment_weight": loss.weights.alignment,
        "sentence_weight": loss.weights.sentence,
        "regularization_weight": loss.weights.regularization,
        "reference model": _hash(model_sums(reference)) if isinstance(reference, nn.Module) else None,
        "code of the objective": _hash(code),
    }


def model_sums(encoder: nn.Module) -> list[float]:
    """The sums of an encoder's weights, rounded, since devices add in different orders; without adapters and random weights."""
    random = layout_of(encoder).missing
    weights = [weight for name, weight in encoder.state_dict().items() if name not in random and ".lora_" not in name]
    return [round(weight.sum(dtype=torch.float64).item(), 4) for weight in weights]


def rows_hash(rows: object) -> str | None:
    """A hash of the content of a data set; None for one that is not from `datasets`."""
    if not isinstance(rows, Dataset):
        return None
    digest = hashlib.sha256()
    for batch in rows.with_format("arrow").iter(1_000):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema.remove_metadata()) as stream:
            stream.write_table(batch.replace_schema_metadata(None).combine_chunks())
        digest.update(sink.getvalue())
    return digest.hexdigest()[:16]


def _hash(*facts: object) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
