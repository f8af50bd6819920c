"""Training that on Ctrl-C and SIGTERM (sent by a cluster's scheduler) saves a checkpoint before it stops."""

import signal
import threading
from types import FrameType
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from utils.core.errors import Interrupted


def train_and_save(trainer: Trainer, checkpoint: str | None) -> None:
    """Train, from a checkpoint if one is given; save the model, the metrics and the trainer's state.

    Raises:
        Interrupted: on Ctrl-C or SIGTERM, with a checkpoint of the last step saved.
    """
    trainer.add_callback(interruption := SaveWhenInterrupted())
    try:
        metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
    finally:
        interruption.restore()
    trainer.save_model(_internal_call=True)  # (it would push an incomplete folder; `publish` pushes at the end)
    trainer.log_metrics("train", metrics)
    trainer.save_metrics("train", metrics)
    trainer.save_state()


class SaveWhenInterrupted(TrainerCallback):
    """On the first signal, saves a checkpoint at the end of the step and raises `Interrupted`. A second one kills the run.

    With several processes a signal to one of them is enough: after every step they agree whether to stop.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._agreed = False
        self._before: dict[int, Any] = {}

    def on_train_begin(self, *_: object, **__: object) -> None:
        if threading.current_thread() is threading.main_thread():  # only it may handle signals
            self._before = {number: signal.signal(number, self._notice) for number in (signal.SIGINT, signal.SIGTERM)}

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self.restore()

    def restore(self) -> None:
        """Restore the handlers that were there before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        noticed = self.signal
        if args.world_size > 1:
            anywhere = torch.tensor(noticed, device=args.device)
            torch.distributed.all_reduce(anywhere, torch.distributed.ReduceOp.MAX)
            noticed = int(anywhere)
        self._agreed = noticed > 0
        self.signal = noticed or self.signal  # (a signal that arrived meanwhile counts after the next step)
        control.should_save |= self._agreed

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        if self._agreed:  # (all processes see a later signal after the next step)
            raise Interrupted(self.signal, state.global_step, state.max_steps)
