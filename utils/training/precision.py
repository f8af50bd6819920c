"""Whether `--bf16` pays: on a CPU, bfloat16 is often slower than fp32."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter

import torch
from torch import Tensor, nn

from utils.alignment.losses import AlignmentLoss
from utils.alignment.words import Batch


logger = logging.getLogger(__name__)

# Passes of each precision that are timed, after one that is not.
_REPEATS = 2
# Smaller differences may be chance.
_SLOWER = 1.1


def warn_if_bf16_is_slower(
    model: nn.Module, loss: AlignmentLoss, batch: Batch, autocast: Callable[[], AbstractContextManager]
) -> None:
    """Time forward and backward passes of a batch in bfloat16 (`autocast`) and in fp32, and warn if bfloat16 is slower.

    The training is not changed: gradients are not kept, and its random numbers are the same as without these passes.
    """
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def total(context: Callable[[], AbstractContextManager]) -> Tensor:
        return loss.weights.total(loss(model, batch, context).means())

    seconds: dict[str, list[float]] = {"bf16": [], "fp32": []}
    model.train()
    with torch.random.fork_rng(devices=[]):
        for _ in range(1 + _REPEATS):
            for name, context in (("bf16", autocast), ("fp32", nullcontext)):
                begin = perf_counter()
                torch.autograd.grad(total(context), weights, allow_unused=True)
                seconds[name].append(perf_counter() - begin)
    bf16, fp32 = (min(of_precision[1:]) for of_precision in seconds.values())
    if bf16 > _SLOWER * fp32:
        n_pairs = len(batch["source_input_ids"])
        logger.warning(
            f"--bf16 is slower than fp32 on this CPU: {n_pairs / bf16:.1f} pairs per second, against {n_pairs / fp32:.1f} "
            "(forward and backward passes of a batch, timed before training); omit it."
        )
