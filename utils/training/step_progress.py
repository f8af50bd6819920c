"""The progress of training and evaluation, for terminals and for log files."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from transformers import ProgressCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import has_length

from utils.core.columns import list_lengths
from utils.core.progress import progress, time_left


class StepProgress(ProgressCallback):
    """Trainer's bars with names and with estimates that fit; what is logged begins with the step and the time that is left."""

    training_bar: Any
    prediction_bar: Any

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            # (Of a training that resumes, the steps before say nothing about its pace.)
            begin = state.global_step
            self.training_bar = progress(description="Training", total=state.max_steps, initial=begin, unit="steps")
        self.current_step = state.global_step

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Any = None,
        **_: Any,
    ) -> None:
        if state.is_world_process_zero and has_length(eval_dataloader):
            if self.prediction_bar is None:
                costs = batch_costs(eval_dataloader)
                self._costs: Iterator[int] = iter(costs)
                leave = self.training_bar is None
                self.prediction_bar = progress(description="Evaluating", total=sum(costs), unit="tokens", leave=leave)
            self.prediction_bar.update(next(self._costs, 0))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        if self.training_bar is not None:
            where = {"step": f"{state.global_step}/{state.max_steps}", "left": time_left(self.training_bar)}
            super().on_log(args, state, control, where | logs)


def batch_costs(loader: Any) -> list[int]:
    """The tokens of each batch of a loader of rows in their order: those of long rows come first and take longest."""
    parts = np.array_split(list_lengths(loader.dataset, "input_ids"), max(1, len(loader)))
    return [int(part.sum()) for part in parts]
