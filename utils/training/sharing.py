"""Publishes a model: its record, its card, its repository on the Hub."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled
from transformers import Trainer, TrainingArguments

from utils.core.errors import InputError, first_line
from utils.core.files import write_json, write_text
from utils.core.page import Section
from utils.core.redaction import redact
from utils.core.result_tables import shorten
from utils.training.model_card import model_card
from utils.training.report import REPORT, plot_losses, write_report


# Checkpoints contain the optimizer's state, three times the size of the model; files with `_` first are the user's own; the
# report quotes examples of the data.
_NOT_PUSHED = ["_*", "checkpoint-*", REPORT]
# Trainer's arguments as a pickle; `run.json` has them as text.
_PICKLE = "training_args.bin"


def check_push(training: TrainingArguments) -> None:
    """With --push_to_hub, create the repository before the training: InputError if the Hub refuses or cannot be reached."""
    if not training.push_to_hub or not training.should_save:
        return
    repository = training.hub_model_id or Path(training.output_dir or ".").absolute().name
    try:
        api = HfApi(token=training.hub_token)
        made = api.create_repo(repository, private=training.hub_private_repo, exist_ok=True)
        # (It is not an error for `create_repo` if the repository exists and belongs to somebody else.)
        api.auth_check(made.repo_id, write=True)
    except OfflineModeIsEnabled:
        raise InputError(
            "--push_to_hub needs the Hub, but HF_HUB_OFFLINE=1 is set; unset it, or leave --push_to_hub out and push later with "
            "`hf upload`."
        ) from None
    except (HTTPError, OSError, ValueError) as error:
        raise InputError(
            f"The finished model could not be pushed to {repository} ({_reason(error)}); `hf auth login` with a token that "
            "may write, or leave --push_to_hub out and push later with `hf upload`."
        ) from None


def publish(trainer: Trainer, record: Mapping[str, Any], sections: Sequence[Section] = (), **hub_options: Any) -> None:
    """Write `run.json`, the report and, for a model that was trained, a figure of its losses and its card; push if asked.

    Args:
        record: content of `run.json` (see `utils.core.records.run_record`).
        sections: what the report begins with.
        hub_options: `cache_dir`, `token`.

    Raises:
        InputError: if the push fails; the folder is complete, and the message says how to push it later.
    """
    training = trainer.args
    if not trainer.is_world_process_zero():
        return
    folder = Path(training.output_dir or ".")
    write_json(folder / "run.json", record)
    (folder / _PICKLE).unlink(missing_ok=True)
    found = recorded_results(folder)
    if training.do_train:
        plot_losses(trainer.state.log_history, folder / "losses.png")
        # (What loads it from here; but no path of a machine, as the card may be published.)
        name = trainer.hub_model_id or (folder.absolute().name if folder.is_absolute() else folder.as_posix())
        write_text(folder / "README.md", redact(model_card(name, record, found, folder, **hub_options)))
    write_report(trainer, record, found, sections)
    if training.push_to_hub and trainer.hub_model_id:
        push(folder, trainer.hub_model_id, training.hub_revision, training.hub_token)


def recorded_results(folder: Path) -> dict[str, Any]:
    """The content of `all_results.json` in an output folder; empty if nothing was measured."""
    path = folder / "all_results.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def push(folder: Path, repository: str, revision: str | None = None, token: str | None = None) -> None:
    """Upload a model's folder, without checkpoints, the report and files that begin with `_`, to a branch (the main one).

    Files that the repository has already are not uploaded again; a report there, and Trainer's pickle, are removed.

    Raises:
        InputError: if it fails, with the command that pushes the folder later.
    """
    try:
        HfApi(token=token).upload_folder(
            repo_id=repository,
            folder_path=folder,
            revision=revision,
            commit_message="Upload model",
            ignore_patterns=_NOT_PUSHED,
            delete_patterns=[_PICKLE, REPORT],
        )
    except Exception as error:  # the client raises many types; for all of them nothing is lost
        raise InputError(
            f"The model is whole, but was not pushed ({_reason(error)}); push it later with: "
            f"hf upload {repository} {folder} . --exclude 'checkpoint-*' --exclude {REPORT}"
        ) from error


def _reason(error: Exception) -> str:
    """The first line of an error and of what caused it, in short: a message also has to name the remedy."""
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE=1 is set: unset it"
    lines = dict.fromkeys(map(first_line, filter(None, (error, error.__cause__))))
    return shorten("; ".join(lines), 70)
