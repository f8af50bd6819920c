"""Batches that go through an encoder, for the vectors of sentences and of words."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from utils.models.layers import hidden_states_at


# Makes the context of an encoder's passes (mixed precision).
Autocast = Callable[[], AbstractContextManager]


def longest_first(lengths: Sequence[int]) -> list[int]:
    """Indices by descending length: batches need little padding, and if memory runs out, the first one tells."""
    return sorted(range(len(lengths)), key=lambda k: -lengths[k])


def encode_batch(
    model: nn.Module, ids: Sequence[Sequence[int]], layers: Sequence[int], pad_token_id: int | None
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Hidden states [batch, length, dimensions] at each layer, and the mask [batch, length], True for tokens.

    The sentences are given as token ids. The device is not waited for.
    """
    device = next(model.parameters()).device
    input_ids = pad_sequence([torch.tensor(s) for s in ids], batch_first=True, padding_value=pad_token_id or 0)
    lengths = to_device(torch.tensor([len(sentence) for sentence in ids]), device)
    mask = torch.arange(input_ids.shape[1], device=device) < lengths[:, None]
    return hidden_states_at(model, to_device(input_ids, device), mask.long(), layers), mask


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor of the CPU to a device, without waiting for the device where that is possible."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
