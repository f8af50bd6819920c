"""Adapters (LoRA, by PEFT): a few megabytes beside a model that stays unchanged.

An adapter is trained on a bare encoder (an adjustment) or on a task model, on top of a plain model or of another adapter.
Loading merges it into its base model, so that the rest of the code sees plain models only. Its folder or repository holds
`adapter_config.json` and `adapter_model.safetensors` (PEFT's files) and the `config.json` of its model.
"""

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, PeftType, TaskType, get_peft_model
from peft.utils import set_peft_model_state_dict
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel

from utils.core.arguments import arg, check_unused
from utils.core.errors import InputError, first_line
from utils.models.checkpoints import OF_ADAPTER, Tensors, atomic_model_write, stored_tensors, weight_files
from utils.models.files import file_of
from utils.models.layers import encoder_of, in_evaluation_mode, parameters_behind


logger = logging.getLogger(__name__)

# Settings of PEFT with which an adapter is more than changes of weights.
_NOT_MERGED = ("alora_invocation_tokens", "layer_replication", "target_parameters", "arrow_config")
# PEFT's prefix of the names of an adapter's tensors.
_PREFIX = "base_model.model."
# PEFT's names of the heads of task models, by the end of the class name.
TASK_TYPES = {
    "ForSequenceClassification": TaskType.SEQ_CLS,
    "ForTokenClassification": TaskType.TOKEN_CLS,
    "ForQuestionAnswering": TaskType.QUESTION_ANS,
}


def adapter_config(name: str, **hub_options: Any) -> LoraConfig | None:
    """The settings of an adapter; None if the name means a plain model or nothing.

    Raises:
        InputError: if the adapter cannot be merged, or does not name its base model.
    """
    path = file_of(name, "adapter_config.json", **hub_options)
    if path is None:
        return None
    try:
        config = LoraConfig.from_pretrained(str(Path(path).parent))
    except Exception as error:  # PEFT raises many types for JSON that is not an object, or has values of wrong types
        raise InputError(f"The adapter_config.json of {name} cannot be read ({error}); download it again.") from None
    if unmergeable := [setting for setting in _NOT_MERGED if getattr(config, setting, None)]:
        raise InputError(f"The adapter {name} cannot be merged into its model: it has {unmergeable[0]}; name another.")
    if config.peft_type != PeftType.LORA:
        raise InputError(f"The adapter {name} is of type {config.peft_type}; only LoRA can be merged into its model.")
    if not config.base_model_name_or_path:
        raise InputError(
            f"The adapter {name} does not name its base model; put base_model_name_or_path into its adapter_config.json."
        )
    return config


def base_of(config: LoraConfig, hub_options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name of an adapter's base model, and the options that load it, at the revision that it was trained on."""
    return str(config.base_model_name_or_path), {**hub_options, "revision": config.revision or "main"}


def adapters_of(name: str, **hub_options: Any) -> tuple[str, list[tuple[str, LoraConfig]]]:
    """The plain model at the bottom of a stack of adapters, and the adapters with their settings, the lowest first."""
    adapters: list[tuple[str, LoraConfig]] = []
    while config := adapter_config(name, **hub_options):
        adapters.insert(0, (name, config))
        name, hub_options = base_of(config, hub_options)
    return name, adapters


def merge_adapter(
    model: PreTrainedModel, name: str, config: LoraConfig, **hub_options: Any
) -> tuple[set[str], dict[str, torch.Tensor]]:
    """Merge an adapter into its base model, in place. One of them may be of an encoder, the other of a task model.

    Returns:
        The names of the model's tensors that were replaced as a whole (a head), and the adapter's tensors that the model
        has no place for (the head of a task model, if this is its encoder).

    Raises:
        InputError: if its weights cannot be read, or do not fit the model.
    """
    try:
        files = weight_files(name, OF_ADAPTER, **hub_options)
        tensors = {path.removeprefix(_PREFIX): tensor for path, tensor in stored_tensors(files) if tensor is not None}
    except (OSError, SafetensorError) as error:
        raise InputError(f"The weights of the adapter {name} cannot be read ({error}); download it again.") from None
    if not tensors:
        raise InputError(f"The adapter {name} has no weights (adapter_model.safetensors); download it again.")
    if damaged := [path for path, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise InputError(f"The weights of the adapter {name} have NaN or infinity in {damaged[0]}; download it again.")
    # The module whose names are those of the adapter.
    encoder, prefix = encoder_of(model), model.base_model_prefix
    root: nn.Module = encoder
    if any(path.startswith(f"{prefix}.") for path in tensors):
        root = nn.ModuleDict({prefix: encoder}) if encoder is model else model
    own, copied, left = dict(root.named_parameters(remove_duplicate=False)), set(), {}
    low_rank = {path: tensors.pop(path) for path in list(tensors) if ".lora_" in path}
    try:
        for path, tensor in tensors.items():
            module, is_rows, _ = path.partition(".token_adapter.trainable_tokens_delta")
            target = f"{module}.weight" if is_rows else path.replace(".base_layer.", ".")
            if is_rows:
                own[target].data[_trained_rows(module, config)] = tensor
            elif target in own and own[target].shape == tensor.shape:
                own[target].data.copy_(tensor)
                copied.add(own[target])
            elif (root is encoder or path.startswith(f"{prefix}.")) and "pooler" not in path:
                raise ValueError(f"there is no {path} of that size")
            else:
                left[path] = tensor
        if low_rank:
            _merge(root, low_rank, config)
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        base = config.base_model_name_or_path
        raise InputError(f"The adapter {name} does not fit its base model {base} ({first_line(error)}).") from None
    model.requires_grad_(True)  # as from `from_pretrained`; PEFT has frozen it
    return {path for path, parameter in model.named_parameters() if parameter in copied}, left


def _trained_rows(module: str, config: LoraConfig) -> list[int]:
    """The rows of an embedding that an adapter replaces. Raises a KeyError if its settings do not say."""
    given = config.trainable_token_indices or {}
    if isinstance(given, list):
        return given
    return given[next((end for end in given if f".{module}".endswith(f".{end}")), module)]


def _merge(root: nn.Module, low_rank: Tensors, config: LoraConfig) -> None:
    """Merge low-rank matrices into the modules that they name."""
    config = copy.deepcopy(config)
    targets = {path.partition(".lora_")[0] for path in low_rank}
    if unknown := targets - dict(root.named_modules()).keys():
        raise ValueError(f"there is no {min(unknown)}")
    config.target_modules = sorted(targets)
    config.exclude_modules = config.modules_to_save = config.task_type = config.base_model_name_or_path = None
    config.layers_to_transform = config.layers_pattern = config.trainable_token_indices = None
    config.bias, config.inference_mode = "none", True
    adapted = get_peft_model(root, config)  # type: ignore[arg-type]  # (any module will do)
    report: Any = set_peft_model_state_dict(adapted, {f"{_PREFIX}{path}": tensor for path, tensor in low_rank.items()})
    if wrong := [*report.unexpected_keys, *(key for key in report.missing_keys if ".lora_" in key)]:
        raise ValueError(f"its names of tensors do not match: {wrong[0]}")
    adapted.merge_and_unload()


def with_lora(
    model: PreTrainedModel,
    base: str,
    lora: "LoraArguments",
    revision: str | None = None,
    layers: Sequence[int] = (-1,),
) -> PeftModel:
    """Put an adapter on an encoder, or on a task model (whose head is trained as a whole), to be trained instead of it.

    Only modules that have a part in the highest of the hidden states `layers` (ascending), and are not frozen, get one. The
    adapter records the name and the commit of its model, `base` and `revision`.

    Raises:
        InputError: if there is no linear module of a name in `lora_target_modules`, or none below the lowest of the layers,
            whose loss would be a constant.
    """
    encoder = encoder_of(model)
    prefix = "" if encoder is model else f"{model.base_model_prefix}."
    behind, behind_lowest = ({prefix + name for name in parameters_behind(encoder, layers[k])} for k in (-1, 0))
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    linear = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    targets = [name for name in linear if f"{name}.weight" in behind]
    if not any(f"{name}.weight" in behind_lowest for name in targets):
        raise InputError("--use_lora finds no linear module to adapt; align a higher layer, or freeze fewer layers.")
    chosen = [] if lora.lora_target_modules == ["auto"] else lora.lora_target_modules
    for end in chosen:
        if not any(f".{name}".endswith(f".{end}") for name in targets):
            known = ", ".join(sorted({name.rpartition(".")[2] for name in targets}))
            raise InputError(f"--lora_target_modules {end}: the encoder has no such linear module; it has {known}.")
    config = LoraConfig(
        r=lora.lora_rank,
        lora_alpha=lora.lora_alpha,  # type: ignore[arg-type]  # (any number will do)
        target_modules=chosen or "all-linear",
        exclude_modules=[name for name in linear if name not in targets],
        modules_to_save=_modules_without(model, behind | frozen) if prefix else None,
        task_type=next((kind for end, kind in TASK_TYPES.items() if type(model).__name__.endswith(end)), None),
        base_model_name_or_path=base,
        revision=revision,
    )
    model.name_or_path = base  # (which PEFT writes into the settings)
    adapted = get_peft_model(model, config)
    trained, whole = adapted.get_nb_trainable_parameters()
    logger.info("LoRA trains %s of %s parameters (%.1f%%).", f"{trained:,}", f"{whole:,}", 100 * trained / whole)
    return adapted


def _modules_without(model: nn.Module, parameters: set[str]) -> list[str]:
    """The outermost modules that have parameters, but none of these: heads, and a pooler."""
    own = {path: {f"{path}.{name}" for name, _ in part.named_parameters()} for path, part in model.named_modules()}
    apart = [path for path, names in own.items() if path and names and names.isdisjoint(parameters)]
    return [path for path in apart if path.rpartition(".")[0] not in apart]


def without_adapter(model: PeftModel) -> Callable[..., Any]:
    """The encoder under an adapter that is being trained, without the adapter: a frozen model that takes no memory.

    The function takes the encoder's inputs and returns its outputs, without dropout. It is not for gradients.
    """
    encoder = encoder_of(model)

    def outputs(**inputs: torch.Tensor) -> Any:
        with model.disable_adapter(), in_evaluation_mode(encoder):
            return encoder(**inputs)

    return outputs


def save_adapter(model: PeftModel, output_dir: str | Path, state_dict: Tensors | None = None) -> None:
    """Write a model's adapter: its weights (or `state_dict`) and settings, and the config of its model."""
    with atomic_model_write(output_dir) as folder:
        model.save_pretrained(folder, state_dict=state_dict, save_embedding_layers=False)
        Path(folder, "README.md").unlink()  # (`publish` writes the card)
        encoder_of(model).config.save_pretrained(folder)


@dataclass
class LoraArguments:
    """Training a small adapter instead of the whole model."""

    use_lora: bool = arg(
        False,
        help="Train an adapter (LoRA, by PEFT) of a few megabytes instead of the model's own weights. Every script takes "
        "the adapter's folder or repository where it takes a model.",
        hyperparameter=True,
        variant=lambda used: "LoRA",
    )
    lora_rank: int = arg(16, help="Rank of the adapter's matrices.", hyperparameter=True, at_least=1)
    lora_alpha: float | None = arg(
        None,
        help="The adapter's output is multiplied by alpha / rank. Default: 2 × rank.",
        hyperparameter=True,
        above=0,
    )
    lora_target_modules: list[str] = arg(
        default_factory=lambda: ["auto"],
        help="Linear modules that get an adapter, by the ends of their names (`query value`); `auto`: all that the hidden "
        "state depends on.",
        hyperparameter=True,
    )
    merge_adapter: bool = arg(False, help="Save a plain model at the end: the adapter merged into its base model.")

    def __post_init__(self) -> None:
        if not self.use_lora:
            check_unused(self, "use_lora")
        if self.lora_alpha is None:
            self.lora_alpha = 2.0 * self.lora_rank

    def check_embeddings(self, freeze_embeddings: bool | None) -> None:
        """Raise an `InputError` if `--freeze_embeddings` is given for an adapter, which never trains them."""
        if self.use_lora and freeze_embeddings is not None:
            raise InputError(
                "--freeze_embeddings does nothing with --use_lora, which never trains embeddings; omit it."
            )
