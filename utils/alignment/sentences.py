"""The vectors of sentences."""

import torch


def mean_of_tokens(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The means [batch, dimensions], fp32, of all tokens, special ones included (Efimov et al., ECIR 2023).

    Args:
        states: [batch, length, dimensions], any floating type.
        mask: [batch, length] of booleans, False for padding.
    """
    # Sums over half-precision states lose digits, and padding may hold anything.
    return states.float().masked_fill(~mask[..., None], 0).sum(dim=1) / mask.sum(dim=1, keepdim=True)
