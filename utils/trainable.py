"""The encoder inside a model, which of its layers are needed, and which of its parameters are trained."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from utils.alignment import hidden_states_at


def encoder_of(model: nn.Module) -> nn.Module:
    """The encoder inside a task model or under an adapter; the model itself, if it is nothing else."""
    return (model.get_base_model() if isinstance(model, PeftModel) else model).base_model


@contextmanager
def only_layers_below(encoder: PreTrainedModel, layers: Sequence[int]) -> Iterator[list[int]]:
    """While it lasts, the encoder goes no further than these hidden states need.

    One layer more than that is kept: after the last one some architectures add a normalisation, which belongs to the last
    hidden state alone. Where the layers are not found in one list, all are kept.

    Args:
        encoder: only for inference; not while it is wrapped, compiled or divided among processes.
        layers: indices into `hidden_states`.

    Yields:
        The same layers, as indices into the `hidden_states` that there are now.
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
    setattr(parent, name, stack[: max(wanted) + 1])
    try:
        yield wanted
    finally:
        setattr(parent, name, stack)


def freeze_unused_parameters(encoder: nn.Module, layer: int = -1) -> None:
    """Freeze the parameters that have no part in a hidden state: a pooler, the layers above.

    Distributed training waits for the gradient of every trainable parameter, so one that never gets any is an error.
    """
    used = parameters_behind(encoder, layer)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name in used)


def freeze_lower_layers(encoder: nn.Module, n_layers: int) -> None:
    """Freeze what the hidden state after the first `n_layers` layers comes from, the embeddings included."""
    behind = parameters_behind(encoder, n_layers) if n_layers else set()
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name not in behind)


def parameters_behind(encoder: nn.Module, layer: int) -> set[str]:
    """The names of the trainable parameters that a hidden state depends on.

    Found by one backward pass on a few tokens, which holds for every architecture.
    """
    trainable = {name: parameter for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    tokens = torch.zeros(1, 2, dtype=torch.long, device=next(encoder.parameters()).device)
    state = hidden_states_at(encoder, tokens, torch.ones_like(tokens), [layer])[0]
    gradients = torch.autograd.grad(state.sum(), list(trainable.values()), allow_unused=True)
    return {name for name, gradient in zip(trainable, gradients) if gradient is not None}
