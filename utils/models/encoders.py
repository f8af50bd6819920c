"""Encoders loaded from a Hub name or a folder, and saved as checkpoints that have lost nothing.

A pretrained checkpoint holds more than the encoder: a pooler, a masked-LM head. `AutoModel` drops what the bare
encoder has no place for, and adds what is missing at random (a pooler). `save_encoder` writes exactly the tensors of the
checkpoint that was loaded, under the same names: fine-tuning starts from the same head as before.
"""

import copy
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from accelerate import init_empty_weights
from huggingface_hub import save_torch_state_dict
from peft import LoraConfig
from torch import nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from utils.core.errors import InputError
from utils.models.adapters import adapter_config, base_of, merge_adapter
from utils.models.checkpoints import (
    Tensors,
    atomic_model_write,
    stored_tensors,
    weight_files,
    wrapped_name,
)
from utils.models.code import save_code
from utils.models.files import file_of
from utils.models.layers import encoder_of
from utils.models.loading import load_config, loading, without_permission


logger = logging.getLogger(__name__)


@dataclass
class CheckpointLayout:
    """How the checkpoint of an encoder names its tensors, and what else it holds."""

    prefix: str = ""  # of the encoder's tensors: `bert.` in a checkpoint with a head
    missing: frozenset[str] = frozenset()  # the encoder's tensors that the checkpoint lacks: random, and not saved
    carried: dict[str, torch.Tensor] = field(default_factory=dict)  # tensors that the encoder lacks: saved unchanged
    architectures: list[str] | None = None  # those of the checkpoint's config
    shared: Mapping[str, str] = field(default_factory=dict)  # names of tensors that a decoder uses as well
    config: PreTrainedConfig | None = None  # of the checkpoint, where it is not the encoder's


_LAYOUTS: WeakKeyDictionary[nn.Module, CheckpointLayout] = WeakKeyDictionary()


def layout_of(encoder: nn.Module) -> CheckpointLayout:
    """The layout of the checkpoint that `load_encoder` read; for any other encoder, that of its own state dict."""
    return _LAYOUTS.get(encoder) or CheckpointLayout()


def load_encoder(name: str, dtype: torch.dtype = torch.float32, **hub_options: Any) -> PreTrainedModel:
    """The bare encoder (`AutoModel`) of a Hub repository or a folder, in evaluation mode.

    Of an encoder with a decoder (mT5, NLLB, mBART) it is the encoder. An adapter is merged into its base model, which may
    be an adapter itself. `save_encoder` writes the encoder in the layout of the checkpoint that was read (`layout_of`).

    Args:
        dtype: type of the weights; adapters are merged in fp32.

    Raises:
        InputError: if there is no such model or it cannot be read.
    """
    if adapter := adapter_config(name, **hub_options):
        encoder = _adapted_encoder(name, adapter, hub_options)
        for weight in encoder.parameters():  # (not buffers, which encode positions)
            weight.data = weight.data.to(dtype)
        return encoder
    config = load_config(name, **hub_options)
    architectures = copy.copy(config.architectures)
    model, report = _load(AutoModel, name, config, hub_options, dtype)
    files = weight_files(name, **hub_options)
    encoder = _without_decoder(model, name)
    if encoder is model:
        _LAYOUTS[encoder] = _checkpoint_layout(encoder, files, report, architectures)
    else:
        _LAYOUTS[encoder] = _layout_with_decoder(model, encoder, files, architectures)
        encoder.name_or_path = name
    return encoder.eval()


def _without_decoder(model: PreTrainedModel, name: str) -> PreTrainedModel:
    """The encoder of a model that has a decoder, else the model itself; `InputError` if its input is not text."""
    if not getattr(model.config, "is_encoder_decoder", False):
        return model
    encoder = model.get_encoder()
    if "input_ids" not in signature(encoder.forward).parameters:
        raise InputError(f"The encoder of {name} ({model.config.model_type}) does not read text; name one that does.")
    return encoder


def _load(
    auto_class: Any,
    name: str,
    config: PreTrainedConfig,
    hub_options: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> tuple[PreTrainedModel, dict[str, set]]:
    """A model whose encoder has all its weights from the checkpoint, and the report of `from_pretrained`."""
    # By default fp32 whatever the checkpoint is stored in: losses compare small differences, Adam adds small steps.
    how = {"dtype": dtype, "output_loading_info": True, "ignore_mismatched_sizes": True, "config": config}
    with loading(name):
        files = weight_files(name, **hub_options)
        if wrapped := wrapped_name(files):
            logger.info(f"The names of the weights of {name} are those of a wrapper ({wrapped}), which is removed.")
            with init_empty_weights():
                model = auto_class.from_config(config, trust_remote_code=hub_options.get("trust_remote_code", False))
            model, report = type(model).from_pretrained(None, state_dict=dict(stored_tensors(files)), **how)
            model.name_or_path = name
        else:
            model, report = auto_class.from_pretrained(name, **how, **without_permission(hub_options))
    encoder = encoder_of(model)
    prefix = "" if encoder is model else f"{model.base_model_prefix}."
    problems = {
        "lack {}": {key for key in report["missing_keys"] if "pooler" not in key and key.startswith(prefix)},
        "have another size of {}": {key for key, *_ in report["mismatched_keys"] if key.startswith(prefix)},
        "hold {}, for which the model has no place": _surplus(encoder, report["unexpected_keys"]),
        "have NaN or infinity in {}": {key for key, weight in model.named_parameters() if not weight.isfinite().all()},
    }
    for problem, keys in problems.items():
        if keys:
            shown = f"{min(keys)} and {len(keys) - 1} others" if len(keys) > 1 else min(keys)
            raise InputError(
                f"The weights of {name} {problem.format(shown)}: they are damaged, or not those of its config.json; "
                "download it again, or name another model."
            )
    return model, report


def _surplus(encoder: PreTrainedModel, unexpected: Iterable[str]) -> set[str]:
    """The stored weights of modules that the encoder has, or of more layers than it has: those that belong to it."""
    known = {re.sub(r"\d+", "N", path) for path, _ in encoder.named_modules()}
    own = {key: key.removeprefix(f"{encoder.base_model_prefix}.") for key in unexpected}
    ends = (".weight", ".bias")
    return {
        key
        for key, name in own.items()
        if name.endswith(ends) and re.sub(r"\d+", "N", name.rpartition(".")[0]) in known
    }


def empty_encoder(name: str, **hub_options: Any) -> PreTrainedModel:
    """An encoder without weights, to know its layers and its longest input before anything large is read.

    Raises:
        InputError: if there is no such model.
    """
    with loading(name), init_empty_weights():
        config = load_config(name, **hub_options)
        model = AutoModel.from_config(config, trust_remote_code=hub_options.get("trust_remote_code", False))
        return _without_decoder(model, name)


def _adapted_encoder(name: str, adapter: LoraConfig, hub_options: Mapping[str, Any]) -> PreTrainedModel:
    base, options = base_of(adapter, hub_options)
    encoder = load_encoder(base, **options)
    replaced, head = merge_adapter(encoder, name, adapter, **hub_options)
    layout = layout_of(encoder)
    layout.missing -= replaced
    if head:  # as in the checkpoint of the task model that the adapter belongs to
        layout.prefix = f"{encoder.base_model_prefix}."
        layout.carried |= head
        config = load_config(name, **hub_options)
        layout.architectures = config.architectures
        encoder.config.id2label, encoder.config.label2id = config.id2label, config.label2id
    encoder.name_or_path = name
    return encoder.eval()


def load_task_model(
    auto_class: Any, name: str, labels: Sequence[str] | None = None, **hub_options: Any
) -> tuple[PreTrainedModel, set[str]]:
    """A task model (`AutoModelFor…`) of a Hub repository or a folder, in fp32, and the names of its random parameters.

    A head that the checkpoint lacks is random; `labels` names its classes, by default the model's own. An adapter is
    merged into its base model, which may be an adapter itself.

    Raises:
        InputError: if there is no such model or it cannot be read.
    """
    if adapter := adapter_config(name, **hub_options):
        if labels is None and file_of(name, "config.json", **hub_options):
            id2label = load_config(name, **hub_options).id2label or {}
            labels = [label for _, label in sorted(id2label.items())]
        base, options = base_of(adapter, hub_options)
        model, new = load_task_model(auto_class, base, labels, **options)
        replaced, unused = merge_adapter(model, name, adapter, **hub_options)
        if unused:
            logger.info(f"The head of the adapter {name} is of another task and is not used ({min(unused)}).")
        model.name_or_path = name
        return model, new - replaced
    config = load_config(name, **hub_options)
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(
            f"The model {name} ({config.model_type}) is an encoder with a decoder, which can be adjusted and measured, but not "
            "fine-tuned for this task; name an encoder."
        )
    if labels:
        config.id2label, config.label2id = dict(enumerate(labels)), {label: k for k, label in enumerate(labels)}
    model, report = _load(auto_class, name, config, hub_options)
    return model, {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}


def _checkpoint_layout(
    encoder: PreTrainedModel, files: list[str], report: Mapping[str, Iterable[str]], architectures: list[str] | None
) -> CheckpointLayout:
    layout = CheckpointLayout(missing=frozenset(report["missing_keys"]), architectures=architectures)
    embeddings = encoder.get_input_embeddings().get_parameter("weight")
    for name, tensor in stored_tensors(files, set(report["unexpected_keys"])):
        if name.startswith(f"{encoder.base_model_prefix}."):
            layout.prefix = f"{encoder.base_model_prefix}."
        # An output matrix tied to the embeddings must follow them: two different copies would no longer be tied.
        if tensor is not None and not (tensor.shape == embeddings.shape and torch.equal(tensor, embeddings)):
            layout.carried[name] = tensor
    return layout


def _layout_with_decoder(
    model: PreTrainedModel, encoder: PreTrainedModel, files: list[str], architectures: list[str] | None
) -> CheckpointLayout:
    """The layout of a checkpoint with a decoder, whose tensors are carried; embeddings that both sides use are stored once."""
    paths = {part: path for path, part in model.named_modules()}
    names = [name for name, _ in stored_tensors(files, ())]
    outer = f"{model.base_model_prefix}."
    outer = outer if any(name.startswith(outer) for name in names) else ""
    prefix = f"{outer}{paths[encoder]}."
    layout = CheckpointLayout(prefix, architectures=architectures, config=copy.deepcopy(model.config))
    embeddings = model.get_input_embeddings().get_parameter("weight")
    stored_as = next(f"{outer}{name}" for name, weight in model.named_parameters() if weight is embeddings)
    layout.shared = {name: stored_as for name, weight in encoder.named_parameters() if weight is embeddings}
    own = {prefix + name for name in encoder.state_dict()}
    for name, tensor in stored_tensors(files, set(names) - own):
        # (Copies of the embeddings, as in older checkpoints, would no longer be tied.)
        if tensor is not None and not (tensor.shape == embeddings.shape and torch.equal(tensor, embeddings)):
            layout.carried[name] = tensor
    return layout


def save_encoder(encoder: PreTrainedModel, output_dir: str | Path, state_dict: Tensors | None = None) -> None:
    """Write an encoder of `load_encoder`, with its own weights or `state_dict`, and every other weight of its checkpoint."""
    layout = layout_of(encoder)
    state = encoder.state_dict() if state_dict is None else state_dict
    own = {stored: state[name].detach().cpu().contiguous() for name, stored in _stored_names(encoder, state).items()}
    config = copy.deepcopy(layout.config or encoder.config)
    config.architectures = layout.architectures or [type(encoder).__name__]
    config.dtype = "float32"
    with atomic_model_write(output_dir) as folder:
        save_torch_state_dict({**layout.carried, **own}, folder, metadata={"format": "pt"})
        save_code(encoder, folder, config)
        config.save_pretrained(folder)


def _stored_names(encoder: PreTrainedModel, names: Iterable[str]) -> dict[str, str]:
    """What the encoder's tensors are called in its checkpoint; without those that the checkpoint lacks."""
    layout = layout_of(encoder)
    return {name: layout.shared.get(name, f"{layout.prefix}{name}") for name in names if name not in layout.missing}


def save_task_model(model: PreTrainedModel, output_dir: str | Path, state_dict: dict | None = None) -> None:
    """Write a task model, with its own weights or `state_dict`, as a checkpoint, over an earlier one."""
    with atomic_model_write(output_dir) as folder:
        model.save_pretrained(folder, state_dict=state_dict)
        save_code(model, folder)


def check_same_kind(encoder: PreTrainedModel, reference: PreTrainedModel) -> None:
    """Raise `InputError` if a reference model differs from the encoder in width, vocabulary or number of layers."""
    for name in ("hidden_size", "vocab_size", "num_hidden_layers"):
        ours, theirs = (getattr(model.config, name) for model in (encoder, reference))
        if ours != theirs:
            raise InputError(
                f"--reference_model {reference.name_or_path} has {name} {theirs}, the encoder {ours}; name the model that "
                "the encoder was adjusted from."
            )


def load_encoder_weights(encoder: PreTrainedModel, folder: str | Path) -> None:
    """Put the weights of a checkpoint of `save_encoder` into the encoder that was saved, in place.

    Raises:
        InputError: if the checkpoint is damaged.
    """
    names, state = _stored_names(encoder, own := encoder.state_dict()), dict[str, torch.Tensor]()
    remedy = "the checkpoint is damaged; remove it, or name another one"
    with loading(str(folder)):  # (without building a model: its code might need a permission)
        stored = dict(stored_tensors(weight_files(str(folder)), set(names.values())))
        state = {name: tensor for name, key in names.items() if (tensor := stored.get(key)) is not None}
        tied = {own[name].data_ptr() for name in state}  # (of tensors that are one, the files have one)
        if lacking := [name for name in names if name not in state and own[name].data_ptr() not in tied]:
            raise InputError(f"The weights of {folder} lack {min(lacking)}: {remedy}.")
        if damaged := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
            raise InputError(f"The weights of {folder} have NaN or infinity in {min(damaged)}: {remedy}.")
        encoder.load_state_dict(state, strict=False)


def weights_checksum(encoder: nn.Module) -> list[float]:
    """The sum of every weight: equal for the same encoder, whatever its folder is called.

    Weights that the checkpoint does not have (a pooler) are random in every run, and left out like adapters.
    """
    random = layout_of(encoder).missing
    weights = (weight for name, weight in encoder.named_parameters() if name not in random and ".lora_" not in name)
    return [weight.detach().sum(dtype=torch.float64).item() for weight in weights]
