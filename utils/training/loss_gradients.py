"""The gradients of several losses with respect to the same parameters: how long they are, and how they point."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from accelerate import Accelerator
from torch import Tensor, nn


class LossGradients:
    """Norms of the gradients of several losses, and the cosine of each two, summed over the batches of an optimizer step.

    Veitsman et al. (2026) measured them while a task and an alignment were learned together, and found them nearly orthogonal.
    Training stays the same: `.grad` is not touched, and no random number is drawn. Until it is read, it holds one gradient
    per loss: as much memory as the parameters take, times the number of losses.

    Args:
        losses: their names, which may end in `_loss`.
        parameters: those that all losses depend on.
        n_batches: how many times `add` is called in the step.
    """

    def __init__(self, losses: Sequence[str], parameters: Sequence[nn.Parameter], n_batches: int) -> None:
        self.parameters = parameters
        self.n_missing = n_batches
        self._sums = {name: [torch.zeros_like(parameter) for parameter in parameters] for name in losses}

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add the gradients of one batch's shares of the losses, before its own backward pass; a batch may lack some of them."""
        self.n_missing -= 1
        for name, sums in self._sums.items():
            if name in losses and losses[name].requires_grad:
                found = torch.autograd.grad(losses[name], self.parameters, retain_graph=True, allow_unused=True)
                for total, gradient in zip(sums, found):
                    if gradient is not None:
                        total.add_(gradient)

    def read(self, accelerator: Accelerator) -> dict[str, float]:
        """`gradient_norm_task`, `gradient_cosine_task_alignment`, …, from the means over processes.

        A gradient of zeros has no cosine.
        """
        names = [name.removesuffix("_loss") for name in self._sums]
        products = torch.zeros(len(names), len(names), dtype=torch.float64)
        for gradients in zip(*self._sums.values()):
            rows = accelerator.reduce(torch.stack([gradient.flatten() for gradient in gradients]).float(), "mean")
            products += (rows @ rows.T).double().cpu()
        norms = products.diag().sqrt()
        found = {f"gradient_norm_{name}": norm.item() for name, norm in zip(names, norms)}
        for (i, one), (j, other) in combinations(enumerate(names), 2):
            if norms[i] and norms[j]:
                found[f"gradient_cosine_{one}_{other}"] = (products[i, j] / (norms[i] * norms[j])).item()
        return found
