"""Whether `--bf16` pays: on a CPU, bfloat16 is often slower than fp32."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from time import perf_counter

import torch
from torch import Tensor, nn

from utils.evaluation.vectors import Autocast


logger = logging.getLogger(__name__)

# Passes of each precision that are timed, after one that is not.
_REPEATS = 2
# Smaller differences may be chance.
_SLOWER = 1.1


def warn_if_bf16_is_slower(
    model: nn.Module,
    loss: Callable[[Autocast], Tensor],
    autocast: Autocast,
    rows: str,
) -> None:
    """Time forward and backward passes of a batch in bfloat16 (`autocast`) and in fp32, and warn if bfloat16 is slower.

    The training is not changed: gradients are not kept, and its random numbers are the same as without these passes.

    Args:
        loss: of the batch, given the context of the model's passes.
        rows: the batch in words, with its size: "16 pairs".
    """
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    seconds: dict[str, list[float]] = {"bf16": [], "fp32": []}
    model.train()
    with torch.random.fork_rng(devices=[]):
        for _ in range(1 + _REPEATS):
            for name, context in (("bf16", autocast), ("fp32", nullcontext)):
                begin = perf_counter()
                torch.autograd.grad(loss(context), weights, allow_unused=True)
                seconds[name].append(perf_counter() - begin)
    bf16, fp32 = (min(of_precision[1:]) for of_precision in seconds.values())
    if bf16 > _SLOWER * fp32:
        logger.warning(
            f"--bf16 is slower than fp32 on this CPU: {bf16:.2f} s for {rows}, against {fp32:.2f} s (forward and backward "
            "passes of a batch, timed before training); omit it."
        )
