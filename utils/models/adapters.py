"""Adapters (LoRA, by PEFT): a few megabytes beside a model that stays as it is.

An adapter is made on a bare encoder (an adjustment) or on a task model, on top of a plain model or of another adapter.
Where one is read it is merged into what it stands on, so that everything else deals with plain models; its folder or
repository holds `adapter_config.json`, `adapter_model.safetensors`, and beside them the model's `config.json`.
"""

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, PeftType, TaskType, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from utils.core.arguments import arg, at_least, check_unused
from utils.core.errors import InputError
from utils.models.checkpoints import OF_ADAPTER, atomic_model_write, file_of, stored_tensors, weight_files
from utils.models.layers import encoder_of, parameters_behind


logger = logging.getLogger(__name__)

# What PEFT puts before the name of every tensor of an adapter.
_BEFORE = "base_model.model."
# What PEFT calls the heads of task models, by the end of the class name.
TASK_TYPES = {
    "ForSequenceClassification": TaskType.SEQ_CLS,
    "ForTokenClassification": TaskType.TOKEN_CLS,
    "ForQuestionAnswering": TaskType.QUESTION_ANS,
}


def adapter_config(name: str, **hub_options: Any) -> LoraConfig | None:  # noqa: ANN401
    """The settings of an adapter; None if the name means a plain model, or nothing.

    Args:
        name: Hub id or folder.
        hub_options: `revision`, `cache_dir`, `token`; others are not used.

    Raises:
        InputError: if the adapter is none that can be merged, or does not say what it stands on.
    """
    path = file_of(name, "adapter_config.json", **hub_options)
    if path is None:
        return None
    try:
        config = LoraConfig.from_pretrained(str(Path(path).parent))
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise InputError(f"The adapter_config.json of {name} cannot be read ({error}); download it again.") from None
    if config.peft_type != PeftType.LORA:
        raise InputError(f"The adapter {name} is of type {config.peft_type}; only LoRA can be merged into its model.")
    if not config.base_model_name_or_path:
        raise InputError(
            f"The adapter {name} does not say what it stands on; put base_model_name_or_path into its adapter_config.json."
        )
    return config


def base_options(config: LoraConfig, hub_options: Mapping[str, Any]) -> dict[str, Any]:
    """The options to load what an adapter stands on: those of the adapter, at the revision that it was made on."""
    return {**hub_options, "revision": config.revision or "main"}


def adapters_of(name: str, **hub_options: Any) -> tuple[str, list[tuple[str, LoraConfig]]]:  # noqa: ANN401
    """The plain model under a model's name, and the adapters that stand on it, the lowest first, with their settings."""
    adapters = []
    while config := adapter_config(name, **hub_options):
        adapters.insert(0, (name, config))
        name, hub_options = config.base_model_name_or_path, base_options(config, hub_options)
    return name, adapters


def merge_adapter(
    model: PreTrainedModel,
    name: str,
    config: LoraConfig,
    **hub_options: Any,  # noqa: ANN401
) -> tuple[set[str], dict[str, torch.Tensor]]:
    """Add an adapter to the weights of a model, in place.

    The model is an encoder or a task model, whichever of the two the adapter was made on.

    Args:
        model: what the adapter stands on, or its encoder.
        name, config: of the adapter.
        hub_options: `revision`, `cache_dir`, `token`, `allow_pickled_weights`; others are not used.

    Returns:
        The names of the model's tensors that were replaced as a whole (a head); and the tensors, by name, that it has
        no place for (the head of a task model, when this is its encoder).

    Raises:
        InputError: if its weights cannot be read, or do not fit the model.
    """
    try:
        files = weight_files(name, OF_ADAPTER, **hub_options)
        names = {stored for stored, _ in stored_tensors(files, set())}
        tensors = {stored.removeprefix(_BEFORE): tensor for stored, tensor in stored_tensors(files, names)}
    except (OSError, SafetensorError) as error:
        raise InputError(f"The weights of the adapter {name} cannot be read ({error}); download it again.") from None
    if not tensors:
        raise InputError(f"The adapter {name} has no weights (adapter_model.safetensors); download it again.")
    lora, others = {}, {}
    for path, tensor in tensors.items():
        module, between, kind = path.partition(".lora_")
        if between:
            lora.setdefault(_path_in(model, module, name), {})[f"lora_{kind}"] = tensor
        else:
            others[path] = tensor
    try:
        _add(model, lora, config)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"The adapter {name} does not fit {config.base_model_name_or_path}, which it says it stands on ({reason})."
        ) from None
    return _replace(model, others)


def _path_in(model: PreTrainedModel, module: str, name: str) -> str:
    """A module's path in this model, of which the adapter may have seen the encoder only, or more than the encoder."""
    prefix = f"{model.base_model_prefix}."
    for path in (module, module.removeprefix(prefix), prefix + module):
        try:
            model.get_submodule(path)
        except AttributeError:
            continue
        return path
    raise InputError(f"The adapter {name} does not fit its model: there is no {module}; name another adapter.")


def _add(model: PreTrainedModel, lora: Mapping[str, Mapping[str, torch.Tensor]], config: LoraConfig) -> None:
    """Merge the low-rank matrices of some modules."""
    config = copy.deepcopy(config)
    config.target_modules, config.modules_to_save, config.inference_mode = set(lora), None, True
    config.task_type = None
    adapted = get_peft_model(model, config)
    state = {f"{_BEFORE}{path}.{kind}": tensor for path, kinds in lora.items() for kind, tensor in kinds.items()}
    report = set_peft_model_state_dict(adapted, state)
    if unknown := report.unexpected_keys:
        raise ValueError(f"unknown tensor {unknown[0]}")
    adapted.merge_and_unload()
    model.requires_grad_(True)  # as from `from_pretrained`; PEFT has frozen it


@torch.no_grad()
def _replace(model: PreTrainedModel, tensors: Mapping[str, torch.Tensor]) -> tuple[set[str], dict[str, torch.Tensor]]:
    """Put whole tensors of an adapter in the place of the model's own, where it has them in this shape."""
    own, prefix, replaced, left = model.state_dict(), f"{model.base_model_prefix}.", set(), {}
    for path, tensor in tensors.items():
        target = next((p for p in (path, path.removeprefix(prefix), prefix + path) if p in own), None)
        if target is None or own[target].shape != tensor.shape:
            left[path] = tensor
        else:
            own[target].copy_(tensor)
            replaced.add(target)
    return replaced, left


def with_lora(
    model: PreTrainedModel,
    base: str,
    revision: str | None = None,
    rank: int = 16,
    alpha: float = 32,
    target_modules: Sequence[str] = ("auto",),
    layer: int = -1,
) -> PeftModel:
    """Put an adapter on a model, to be trained in the place of the model's own weights.

    Args:
        model: an encoder, or a task model, whose head is trained as a whole.
        base, revision: what the adapter stands on: the name and commit of the model, which the adapter records.
        rank, alpha: of its matrices, whose product is multiplied by alpha / rank.
        target_modules: ends of the names of the encoder's linear modules that get an adapter; `auto` means all that the
            hidden state comes from and that are not frozen.
        layer: the hidden state, an index into `hidden_states`.

    Raises:
        InputError: if there is no linear module of the given names.
    """
    encoder = encoder_of(model)
    prefix = "" if encoder is model else f"{model.base_model_prefix}."
    behind = parameters_behind(encoder, layer)
    linear = [
        name for name, part in encoder.named_modules() if isinstance(part, nn.Linear) and f"{name}.weight" in behind
    ]
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=[prefix + name for name in _chosen(linear, target_modules)],
        modules_to_save=list(_modules_without(model, {prefix + name for name in behind})) if prefix else None,
        task_type=next((kind for end, kind in TASK_TYPES.items() if type(model).__name__.endswith(end)), None),
        base_model_name_or_path=base,
        revision=revision,
    )
    model.name_or_path = base  # (which PEFT writes into the settings)
    adapted = get_peft_model(model, config)
    trained, whole = adapted.get_nb_trainable_parameters()
    logger.info("LoRA trains %s of %s parameters (%.1f%%).", f"{trained:,}", f"{whole:,}", 100 * trained / whole)
    return adapted


def _chosen(linear: Sequence[str], wanted: Sequence[str]) -> list[str]:
    if list(wanted) == ["auto"]:
        return list(linear)
    for end in wanted:
        if not any(f".{name}".endswith(f".{end}") for name in linear):
            known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
            raise InputError(f"--lora_target_modules {end}: the encoder has no such linear module; it has {known}.")
    return [name for name in linear if any(f".{name}".endswith(f".{end}") for end in wanted)]


def _modules_without(model: nn.Module, parameters: set[str], before: str = "") -> Iterator[str]:
    """The outermost modules that have parameters, but none of these: heads, and a pooler."""
    for name, part in model.named_children():
        own = {f"{before}{name}.{path}" for path, _ in part.named_parameters()}
        if own and own.isdisjoint(parameters):
            yield before + name
        elif own - parameters:
            yield from _modules_without(part, parameters, f"{before}{name}.")


class AdapterOff:
    """The encoder under an adapter that is being trained, as it is without: a frozen model that takes no memory.

    Args:
        model: with the adapter.
    """

    def __init__(self, model: PeftModel) -> None:
        self.encoder = encoder_of(model)
        self.config = self.encoder.config
        self._layers = [part for part in self.encoder.modules() if isinstance(part, BaseTunerLayer)]

    def __call__(self, **inputs: torch.Tensor) -> Any:  # noqa: ANN401
        """What the encoder makes of the inputs, without adapter and without dropout. Not for gradients."""
        with self._off():
            return self.encoder(**inputs)

    @contextmanager
    def _off(self) -> Iterator[None]:
        training = self.encoder.training
        self.encoder.eval()
        for layer in self._layers:
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in self._layers:
                layer.enable_adapters(True)
            self.encoder.train(training)


def save_adapter(
    model: PeftModel, output_dir: str | Path, state_dict: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Write an adapter: its weights and settings, and the config of its model.

    Args:
        model: with the adapter.
        output_dir: the folder.
        state_dict: its weights, if they are not to be taken from `model` (gathered from several processes, say).
    """
    state = get_peft_model_state_dict(model, state_dict=state_dict, save_embedding_layers=False)
    settings = copy.deepcopy(model.peft_config["default"])
    settings.inference_mode = True
    with atomic_model_write(output_dir) as folder:
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        save_file(weights, Path(folder, "adapter_model.safetensors"), metadata={"format": "pt"})
        settings.save_pretrained(folder)
        model.get_base_model().config.save_pretrained(folder)


@dataclass
class LoraArguments:
    """Training a small adapter in the place of the whole model."""

    use_lora: bool = arg(
        False,
        help="Train an adapter (LoRA, by PEFT) of a few megabytes and leave the model as it is. Every script takes the "
        "adapter's folder or repository where it takes a model.",
        hyperparameter=True,
    )
    lora_rank: int = arg(16, help="Rank of its matrices: its size, and what it can learn.", hyperparameter=True)
    lora_alpha: float | None = arg(
        None, help="Its output is multiplied by alpha / rank. Default: twice the rank.", hyperparameter=True
    )
    lora_target_modules: list[str] = arg(
        default_factory=lambda: ["auto"],
        help="Linear modules that get one, by the ends of their names (`query value`); `auto`: all that the hidden "
        "state comes from.",
        hyperparameter=True,
    )
    merge_adapter: bool = arg(False, help="Write a plain model in the end: the adapter merged into what it stands on.")

    def __post_init__(self) -> None:
        at_least(1, self, "lora_rank")
        if self.lora_alpha is not None and self.lora_alpha <= 0:
            raise InputError(f"--lora_alpha {self.lora_alpha} is too small; it must be more than 0.")
        if not self.use_lora:
            check_unused(self, "use_lora")
        if self.lora_alpha is None:
            self.lora_alpha = 2.0 * self.lora_rank
