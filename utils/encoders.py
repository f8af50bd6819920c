"""Encoders from a Hub name or a folder, and back to a checkpoint that lost nothing.

A pretrained checkpoint holds more than the encoder: a pooler, a masked-LM head. `AutoModel` drops what the bare
encoder has no place for, and invents what is missing (a random pooler). A checkpoint saved by `save_encoder` has
exactly the tensors of the one it came from, under the same names: fine-tuning starts from the same head as before.
"""

import copy
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME, logging
from transformers.utils.hub import cached_file, get_checkpoint_shard_files

from utils.alignment import hidden_states_at
from utils.errors import InputError


@dataclass
class CheckpointLayout:
    """How the checkpoint that an encoder came from names its tensors, and what else it holds.

    Attributes:
        prefix: what stands before the encoder's own names (`bert.` in a checkpoint with a head, else nothing).
        invented: the encoder's tensors that the checkpoint does not have; they are not saved.
        carried: the checkpoint's tensors that the bare encoder has no place for; they are saved unchanged.
        architectures: `config.architectures` of the checkpoint.
    """

    prefix: str = ""
    invented: frozenset[str] = frozenset()
    carried: dict[str, torch.Tensor] = field(default_factory=dict)
    architectures: list[str] | None = None


def load_tokenizer(model_name_or_path: str, **hub_options: object) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a Hub repository or a folder.

    Raises:
        InputError: if there is none.
    """
    try:
        return AutoTokenizer.from_pretrained(model_name_or_path, use_fast=True, **hub_options)
    except (OSError, ValueError) as error:
        raise not_found(model_name_or_path, error) from error


def load_encoder(model_name_or_path: str, **hub_options: object) -> PreTrainedModel:
    """The bare encoder (`AutoModel`) of a Hub repository or a folder, in fp32 and evaluation mode.

    Args:
        model_name_or_path: Hub id or folder; any architecture that `AutoModel` knows.
        hub_options: `revision`, `cache_dir`, `token`, `trust_remote_code`, handed to `from_pretrained`.

    Returns:
        The encoder; its attribute `checkpoint_layout` is what `save_encoder` needs.

    Raises:
        InputError: if there is no such model or it cannot be read.
    """
    try:
        # The report of unused and invented weights alarms for no reason: nothing is lost, no invented weight is used.
        with quiet_transformers():
            config = AutoConfig.from_pretrained(model_name_or_path, **hub_options)
            architectures = copy.copy(config.architectures)
            # fp32 whatever the checkpoint is stored in: the losses compare small differences, Adam adds small steps.
            encoder, report = AutoModel.from_pretrained(
                model_name_or_path, config=config, dtype=torch.float32, output_loading_info=True, **hub_options
            )
    except (OSError, ValueError, SafetensorError) as error:
        raise not_found(model_name_or_path, error) from error
    if report["mismatched_keys"]:
        raise InputError(f"The weights of {model_name_or_path} do not fit its config.json; download it again.")
    encoder.checkpoint_layout = _checkpoint_layout(encoder, model_name_or_path, report, architectures, hub_options)
    return encoder.eval()


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """transformers reports errors only."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def not_found(model_name_or_path: str, error: Exception) -> InputError:
    """What to tell the user when a model cannot be loaded."""
    reason = str(error).strip().splitlines()[0]
    if os.path.isdir(model_name_or_path):
        return InputError(f"The folder {model_name_or_path} holds no model that can be loaded ({reason})")
    if isinstance(error, ValueError):  # it is there, but is not what this version of transformers can load
        return InputError(f"The model {model_name_or_path} cannot be loaded ({reason})")
    return InputError(
        f"There is no model {model_name_or_path}: neither a folder of that name nor, as far as can be seen from here, "
        "a repository on the Hub; check the spelling, and `hf auth login` if it is private."
    )


def _checkpoint_layout(
    encoder: PreTrainedModel,
    model_name_or_path: str,
    report: Mapping[str, Iterable[str]],
    architectures: list[str] | None,
    hub_options: Mapping[str, object],
) -> CheckpointLayout:
    layout = CheckpointLayout(invented=frozenset(report["missing_keys"]), architectures=architectures)
    unexpected = set(report["unexpected_keys"])
    embeddings = encoder.get_input_embeddings().weight
    for name, tensor in _checkpoint_tensors(model_name_or_path, unexpected, hub_options):
        if name.startswith(f"{encoder.base_model_prefix}."):
            layout.prefix = f"{encoder.base_model_prefix}."
        # An output matrix tied to the embeddings must follow them: two different copies would no longer be tied.
        if tensor is not None and not (tensor.shape == embeddings.shape and torch.equal(tensor, embeddings)):
            layout.carried[name] = tensor
    return layout


def _checkpoint_tensors(
    model_name_or_path: str, wanted: set[str], hub_options: Mapping[str, object]
) -> Iterable[tuple[str, torch.Tensor | None]]:
    """The names of a checkpoint's tensors, as `transformers` reads them, each with its value in fp32 if wanted."""
    options = {k: v for k, v in hub_options.items() if k != "trust_remote_code"}
    for weights, index in ((SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME), (WEIGHTS_NAME, WEIGHTS_INDEX_NAME)):
        quiet = {"_raise_exceptions_for_missing_entries": False}
        if path := cached_file(model_name_or_path, weights, **options, **quiet):
            files = [path]
        elif path := cached_file(model_name_or_path, index, **options, **quiet):
            files, _ = get_checkpoint_shard_files(model_name_or_path, path, **options)
        else:
            continue
        for file in files:
            yield from _tensors_in(file, wanted)
        return


def _tensors_in(file: str, wanted: set[str]) -> Iterable[tuple[str, torch.Tensor | None]]:
    if file.endswith(".safetensors"):
        with safe_open(file, framework="pt") as tensors:
            for stored in tensors.keys():  # noqa: SIM118 (not a dict)
                name = _current_name(stored)
                yield name, tensors.get_tensor(stored).float() if name in wanted else None
    else:
        for stored, tensor in torch.load(file, map_location="cpu", weights_only=True).items():
            name = _current_name(stored)
            yield name, tensor.float() if name in wanted else None


def _current_name(name: str) -> str:
    """TensorFlow-era checkpoints (mBERT's too) call a layer norm's parameters gamma and beta."""
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def save_encoder(
    encoder: PreTrainedModel, output_dir: str | Path, state_dict: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Write an encoder of `load_encoder` as a checkpoint with every weight of the one it came from.

    The weights are written to a temporary folder first, then moved into place, so that a full disk or a kill does
    not leave half a file in the place of a good one.

    Args:
        encoder: the adjusted encoder.
        output_dir: folder for `config.json` and `model.safetensors` (or shards and their index).
        state_dict: its weights, if they are not to be taken from `encoder` (gathered from several processes, say).
    """
    layout: CheckpointLayout = encoder.checkpoint_layout
    state = encoder.state_dict() if state_dict is None else state_dict
    own = {f"{layout.prefix}{k}": v.detach().cpu().contiguous() for k, v in state.items() if k not in layout.invented}
    config = copy.deepcopy(encoder.config)
    config.architectures = layout.architectures or [type(encoder).__name__]
    config.dtype = "float32"
    os.makedirs(output_dir, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output_dir, prefix=".writing-") as folder:
        save_torch_state_dict({**own, **layout.carried}, folder, metadata={"format": "pt"})
        config.save_pretrained(folder)
        for name in sorted(os.listdir(folder)):
            os.replace(os.path.join(folder, name), os.path.join(output_dir, name))


def encoder_of(model: nn.Module) -> nn.Module:
    """The encoder inside a task model, which is the model itself if it has no head."""
    return model.base_model


def check_same_kind(encoder: PreTrainedModel, reference: PreTrainedModel) -> None:
    """Stop if a reference model cannot be compared with the encoder: another width, or another vocabulary."""
    for name in ("hidden_size", "vocab_size", "num_hidden_layers"):
        ours, theirs = (getattr(model.config, name) for model in (encoder, reference))
        if ours != theirs:
            raise InputError(
                f"--reference_model {reference.name_or_path} has {name} {theirs}, the encoder {ours}; name the model that "
                "the encoder was adjusted from."
            )


def load_encoder_weights(encoder: PreTrainedModel, folder: str | Path) -> None:
    """Put the weights of a checkpoint of `save_encoder` into an encoder of the same architecture, in place."""
    saved = load_encoder(str(folder))
    present = {k: v for k, v in saved.state_dict().items() if k not in saved.checkpoint_layout.invented}
    encoder.load_state_dict(present, strict=False)


def freeze_unused_parameters(encoder: nn.Module, layer: int = -1) -> None:
    """Freeze the parameters that have no part in a hidden state: a pooler, the layers above.

    Distributed training waits for the gradient of every trainable parameter, so one that never gets any is an error.
    """
    used = _parameters_behind(encoder, layer)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name in used)


def freeze_lower_layers(encoder: nn.Module, n_layers: int) -> None:
    """Freeze what the hidden state after the first `n_layers` layers comes from, the embeddings included."""
    behind = _parameters_behind(encoder, n_layers) if n_layers else set()
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name not in behind)


def _parameters_behind(encoder: nn.Module, layer: int) -> set[str]:
    """The names of the trainable parameters that a hidden state depends on.

    Found by one backward pass on a few tokens, which holds for every architecture.
    """
    trainable = {name: parameter for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    tokens = torch.zeros(1, 2, dtype=torch.long, device=next(encoder.parameters()).device)
    state = hidden_states_at(encoder, tokens, torch.ones_like(tokens), [layer])[0]
    gradients = torch.autograd.grad(state.sum(), list(trainable.values()), allow_unused=True)
    return {name for name, gradient in zip(trainable, gradients) if gradient is not None}
