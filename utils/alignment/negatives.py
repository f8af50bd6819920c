"""Negatives from the whole of an optimizer step: from its accumulated batches, and from all processes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor


@dataclass(frozen=True)
class Ends:
    """The two ends of N linked words, or of N sentence pairs."""

    source: Sequence[Tensor]  # by layer, vectors [N, dimensions]
    english: Sequence[Tensor]
    source_spelling: Tensor  # [N], checksums
    english_spelling: Tensor

    def __len__(self) -> int:
        return len(self.source_spelling)

    @property
    def spellings(self) -> tuple[Tensor, Tensor]:
        """The checksums of both sides."""
        return self.source_spelling, self.english_spelling

    def constant(self, device: torch.device | str) -> "Ends":
        """The same without gradients, on a device."""
        source, english = ([vectors.detach().to(device) for vectors in side] for side in (self.source, self.english))
        return Ends(source, english, self.source_spelling.to(device), self.english_spelling.to(device))

    def joined(self, others: Sequence["Ends"]) -> "Ends":
        """These pairs, and then others as constants."""
        if not others:
            return self
        parts = [self, *(ends.constant(self.source_spelling.device) for ends in others)]
        source, english = (
            [torch.cat(of_layer) for of_layer in zip(*sides)]
            for sides in ([ends.source for ends in parts], [ends.english for ends in parts])
        )
        source_spelling, english_spelling = map(torch.cat, zip(*(ends.spellings for ends in parts)))
        return Ends(source, english, source_spelling, english_spelling)


EndsByLoss = Mapping[str, Ends]  # by the name of the loss
# Under this name a batch carries its `PartOfStep`.
PART = "part_of_step"


@dataclass
class PartOfStep:
    """One batch of an optimizer step that has others, accumulated or on other processes, whose vectors are negatives too.

    The gradient of a loss over all pairs of the step is the sum of its gradients by the vectors of each batch. So each batch
    computes the loss of the whole step, in which the vectors of the others are constants.
    """

    # None: not known before each process has the vectors of its only batch.
    others: list[EndsByLoss] | None = None
    # Before the first pass: modules that draw numbers, and their states.
    random_state: Sequence[tuple[Any, Tensor]] = ()

    def of_others(self, own: EndsByLoss) -> list[EndsByLoss]:
        """The ends of the step's other batches. Without `others` all processes call this together."""
        if self.others is None:
            everywhere = gather_object([_constants(own, "cpu")])
            return [ends for rank, ends in enumerate(everywhere) if rank != torch.distributed.get_rank()]
        return self.others

    @contextmanager
    def same_dropout(self) -> Iterator[None]:
        """Within the context random numbers are those of the first pass, if there was one; afterwards, as if not used."""
        now = [(module, module.get_rng_state()) for module, _ in self.random_state]
        _set_random_state(self.random_state)
        yield
        _set_random_state(now)


def parts_of_step(
    ends_of: Callable[[Mapping[str, Tensor]], EndsByLoss],
    batches: Sequence[Mapping[str, Tensor] | None],
    accelerator: Accelerator,
    all_have_pairs: bool,
) -> list[PartOfStep | None]:
    """What each batch of an optimizer step on this process needs of the others. All processes call this together.

    Accumulated batches are passed through the encoder twice, first without gradient: the others' vectors must be known
    before the first loss is computed. One batch on each of several processes needs only one pass.

    Args:
        ends_of: passes a batch through the encoder, in training mode.
        batches: those of this process; None for one without pairs.
        all_have_pairs: whether no batch of any process is None.
    """
    if len(batches) == 1 and all_have_pairs:
        return [PartOfStep() if accelerator.num_processes > 1 else None]
    device = "cpu" if accelerator.num_processes > 1 else accelerator.device
    states, found = [], []
    for batch in batches:
        states.append(_random_state(accelerator.device))
        with torch.no_grad():
            found.append(_constants(ends_of(batch), device) if batch else {})
    everywhere = gather_object([found]) if accelerator.num_processes > 1 else [found]
    everywhere.insert(0, everywhere.pop(accelerator.process_index))
    all_ends = [ends for of_process in everywhere for ends in of_process]
    return [
        PartOfStep([ends for k, ends in enumerate(all_ends) if k != own], state) if batches[own] else None
        for own, state in enumerate(states)
    ]


def _random_state(device: torch.device) -> list[tuple[Any, Tensor]]:
    modules = [torch] if device.type == "cpu" else [torch, torch.get_device_module(device)]
    return [(module, module.get_rng_state()) for module in modules]


def _set_random_state(states: Sequence[tuple[Any, Tensor]]) -> None:
    for module, state in states:
        module.set_rng_state(state)


def _constants(ends: EndsByLoss, device: torch.device | str) -> EndsByLoss:
    return {name: of_loss.constant(device) for name, of_loss in ends.items()}
