"""The encoder inside a model, its hidden states, which of its layers are needed, and which parameters are trained."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from utils.core.errors import InputError


def hidden_states_at(
    model: Callable[..., Any], input_ids: torch.Tensor, attention_mask: torch.Tensor, layers: Sequence[int]
) -> list[torch.Tensor]:
    """Hidden states of an encoder, [batch, length, dimensions] each, at layers: 0 the embeddings, -1 the last layer."""
    if list(layers) == [-1]:
        return [model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state]
    states = model(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True).hidden_states
    return [states[layer] for layer in layers]


def encoder_of(model: nn.Module) -> PreTrainedModel:
    """The encoder inside a task model or under an adapter; the model itself if it is a plain encoder."""
    plain: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return plain.base_model


@contextmanager
def in_evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Dropout is off within the context; afterwards every module is in its former mode."""
    in_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in in_training:
            module.training = True


@contextmanager
def only_layers_below(encoder: PreTrainedModel, layers: Sequence[int]) -> Iterator[list[int]]:
    """Within the context the encoder computes no layers above those that these hidden states need.

    Yields the same layers, as indices into the `hidden_states` within the context. One more layer is kept: after the last
    one some architectures add a normalization, which belongs to the last hidden state only. If the layers are not in a
    single list, all are kept. For inference only (`eval`), with an encoder that is not wrapped, compiled or divided among processes.
    """
    n_layers = encoder.config.num_hidden_layers
    wanted = [layer % (n_layers + 1) for layer in layers]
    stacks = [
        (parent, name, part)
        for parent in encoder.modules()
        for name, part in parent.named_children()
        if isinstance(part, nn.ModuleList) and len(part) == n_layers
    ]
    if len(stacks) != 1 or max(wanted) + 1 >= n_layers:
        yield list(layers)
        return
    parent, name, stack = stacks[0]
    # At the first pass that returns hidden states, transformers hooks into the layers that there are then, permanently.
    with torch.no_grad():
        tokens = torch.zeros(1, 1, dtype=torch.long, device=next(encoder.parameters()).device)
        hidden_states_at(encoder, tokens, torch.ones_like(tokens), [0])
    setattr(parent, name, stack[: max(wanted) + 1])
    try:
        yield wanted
    finally:
        setattr(parent, name, stack)


def freeze_unused_parameters(encoder: nn.Module, layer: int = -1) -> None:
    """Freeze the parameters that a hidden state does not depend on: a pooler, the layers above.

    (In distributed training a trainable parameter without gradient is an error.)
    """
    used = parameters_behind(encoder, layer)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name in used)


def freeze_layers(
    encoder: PreTrainedModel, layers: Sequence[str], embeddings: bool | None = None, aligned: int = -1
) -> None:
    """Freeze the layers that `--freeze_layers` names, and the embeddings (None: if the first layer is frozen).

    The parameters of a layer are those that its output depends on, and its input does not: what layers share belongs to
    the lowest of them, a normalization after the last layer to that one. Frozen layers keep their dropout.

    Raises:
        InputError: for layers that do not exist, or if nothing is frozen, or nothing is left to train behind the hidden
            state `aligned`, the lowest of several: its loss would be a constant that only lessens the part of the others.
    """
    chosen = parse_frozen_layers(layers, encoder.config.num_hidden_layers)
    if embeddings is None:
        embeddings = 0 in chosen
    frozen = parameters_behind(encoder, 0) if embeddings else set()
    # Neighboring layers together: each border costs a backward pass.
    for first in (layer for layer in chosen if layer - 1 not in chosen):
        end = next(layer for layer in range(first, max(chosen) + 2) if layer not in chosen)
        frozen |= parameters_behind(encoder, end) - parameters_behind(encoder, first)
    shown = f"--freeze_layers {' '.join(layers)}" if chosen else "--freeze_embeddings true"
    if chosen and not frozen:
        raise InputError(f"{shown} names only layers above --alignment_layer, which are not trained anyway; omit it.")
    if frozen and frozen >= parameters_behind(encoder, aligned):
        raise InputError(
            f"{shown} leaves nothing to train up to --alignment_layer {aligned}; freeze less, or align higher."
        )
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name not in frozen)


def parse_frozen_layers(layers: Sequence[str], n_layers: int) -> set[int]:
    """Read `6` (the first six), `0-5`, `2 3 7`, `front` or `back` as layers, numbered from 0.

    `front` is the lower half, `back` the upper one (Bakos et al., NAACL 2025).

    Raises:
        InputError: for anything else, or a layer that does not exist.
    """
    words, half = " ".join(layers).split(), n_layers // 2
    halves = {"front": f"0-{half - 1}", "back": f"{half}-{n_layers - 1}"}
    if len(words) == 1 and re.fullmatch("[0-9]{1,4}", words[0]):
        words = [f"0-{int(words[0]) - 1}"] if int(words[0]) else []
    elif len(words) == 1 and words[0] in halves:
        words = [halves[words[0]]]
    ranges = [re.fullmatch("([0-9]{1,4})(?:-([0-9]{1,4}))?", word) for word in words]
    found = [range(int(one[1]), int(one[2] or one[1]) + 1) for one in ranges if one]
    if len(found) < len(words) or not all(found) or any(layer >= n_layers for one in found for layer in one):
        raise InputError(
            f"--freeze_layers {' '.join(layers)}: the encoder has the layers 0 to {n_layers - 1}; give a range like "
            f"0-{half}, a list like 0 {half}, front, back, or the number of the first layers."
        )
    return {layer for one in found for layer in one}


def parameters_behind(encoder: nn.Module, layer: int) -> set[str]:
    """The names of the trainable parameters that a hidden state depends on, found by a backward pass on two tokens."""
    trainable = {name: parameter for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    tokens = torch.zeros(1, 2, dtype=torch.long, device=next(encoder.parameters()).device)
    state = hidden_states_at(encoder, tokens, torch.ones_like(tokens), [layer])[0]
    gradients = torch.autograd.grad(state.sum(), list(trainable.values()), allow_unused=True)
    return {name for name, gradient in zip(trainable, gradients) if gradient is not None}


def is_causal(encoder: PreTrainedModel) -> bool:
    """Whether tokens see only what stands before them: whether the first of two does not depend on the second."""
    tokens = torch.tensor([[0, 0], [0, 1]], device=next(encoder.parameters()).device)
    with torch.no_grad():
        first, second = hidden_states_at(encoder, tokens, torch.ones_like(tokens), [-1])[0][:, 0].float()
    return torch.allclose(first, second, rtol=1e-3, atol=1e-5)


def usual_layer(n_layers: int) -> int:
    """The layer that usually finds translations best: 8 of 12, or two thirds of any other number."""
    return round(n_layers * 2 / 3)


def aligned_layers(layers: Sequence[int], n_layers: int) -> list[int]:
    """`--alignment_layer` as different indices into `hidden_states`, in ascending order; the last layer is always -1.

    Raises:
        InputError: for a layer that does not exist.
    """
    ascending = parse_layers(layers, n_layers, "--alignment_layer")
    return [-1 if layer == n_layers else layer for layer in ascending]


def parse_layers(layers: str | Sequence[str | int] | None, n_layers: int, argument: str = "--layers") -> list[int]:
    """Read `8`, `0 4 8`, `-1` or `all` as indices into `hidden_states`, ascending from 0; None means `usual_layer`.

    Raises:
        InputError: for a layer that does not exist.
    """
    words = " ".join(map(str, [layers] if isinstance(layers, str) else layers or [usual_layer(n_layers)])).split()
    if words == ["all"]:
        return list(range(n_layers + 1))
    known = {str(layer): layer % (n_layers + 1) for layer in range(-n_layers - 1, n_layers + 1)}
    if unknown := [word for word in words if word not in known]:
        raise InputError(
            f"{argument} {unknown[0]} does not exist in an encoder with {n_layers} layers; choose from 0 (the "
            f"embeddings) to {n_layers} (the last, also -1){', or all' * (argument == '--layers')}."
        )
    return sorted({known[word] for word in words})
