"""Arguments of the scripts that measure one or several models."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import PartialState

from utils.core.arguments import arg
from utils.models.hub import MBERT, HubArguments, label_models, nickname
from utils.models.lineage import adjusted_languages


@dataclass(kw_only=True)
class ModelsArguments(HubArguments):
    """Which models are compared, and how they encode."""

    model_name_or_path: list[str] = arg(
        default_factory=lambda: [MBERT],
        aliases=["--model", "--models"],
        help="Encoders, or models fine-tuned for a task: Hub ids or local folders. Several are compared on the same "
        "data, in one table and one figure.",
    )
    max_seq_length: int | None = arg(
        None, help="Truncate sentences to this many tokens. Default: the longest input of the encoders.", at_least=1
    )
    per_device_eval_batch_size: int = arg(
        64, help="Sentences encoded at once per device.", at_least=1, at_most=100_000
    )
    use_cpu: bool = arg(False, help="Use the CPU even if there is a GPU.")
    bf16: bool = arg(False, help="Encode in bfloat16 (autocast): faster on recent GPUs.")

    def find_models(self) -> dict[str, str]:
        """Folder or Hub id of each model, by its label; raises an `InputError` if one does not exist or is given twice."""
        return {label: self.find(name) for label, name in label_models(self.model_name_or_path).items()}

    def languages_of(self, models: Mapping[str, str]) -> list[str]:
        """The languages that the models were adjusted to, by their records."""
        found = [adjusted_languages(name, **self.hub_options()) for name in models.values()]
        return list(dict.fromkeys(language for of_model in found for language in of_model))

    def state(self) -> PartialState:
        """The device of this process, and the processes that share the work."""
        # (Without `cpu`, several processes on a CPU would not know of each other.)
        return PartialState(cpu=self.use_cpu or not torch.accelerator.is_available())

    def autocast(self) -> AbstractContextManager:
        """Mixed precision with `--bf16`, on the device of this process."""
        return torch.autocast(self.state().device.type, torch.bfloat16, enabled=self.bf16)


@dataclass(kw_only=True)
class EvaluationArguments(ModelsArguments):
    """Which models are measured."""

    output_dir: str | None = arg(
        None,
        help="Folder for results and figures. Default: one in runs/ that is named after the script and the models.",
    )
    overwrite_output_dir: bool = arg(
        False, help="Write into --output_dir even if it is not empty, and over files that exist."
    )

    def assume_output_dir(self, script: str) -> dict[str, str]:
        """Set `output_dir` if the command line does not name it; returns what was assumed, by argument."""
        if self.output_dir:
            return {}
        self.output_dir = f"runs/{script}-{'-vs-'.join(map(nickname, self.model_name_or_path))}"[:200]
        return {"--output_dir": self.output_dir}


def by_label(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The results of several models in one dictionary with `LABEL/` before their names; those of one model unchanged."""
    if len(results) == 1:
        return dict(*results.values())
    return {f"{label}/{name}": value for label, of_model in results.items() for name, value in of_model.items()}
