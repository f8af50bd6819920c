"""What training and evaluation show of their progress."""

import io
import sys

from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import TrainerControl, TrainerState, TrainingArguments

from utils.training.step_progress import StepProgress, batch_costs


def test_logs_name_step_and_time_and_stay_as_they_are(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    args = TrainingArguments(str(tmp_path), use_cpu=True)
    shown, control = StepProgress(), TrainerControl()
    state = TrainerState(max_steps=100, global_step=40)
    shown.on_train_begin(args, state, control)
    shown.training_bar.start_t -= 10  # as if 10 s had passed
    state.global_step = 50
    shown.on_step_end(args, state, control)
    shown.training_bar._ema_dt = lambda: 0  # (so that the average counts)
    logs = {"loss": 0.123456, "total_flos": 3.0}
    shown.on_log(args, state, control, logs)
    assert logs == {"loss": 0.123456, "total_flos": 3.0}
    assert capsys.readouterr().out.strip() == "{'step': '50/100', 'left': '00:50', 'loss': '0.1235'}"
    shown.on_train_end(args, state, control)
    shown.on_log(args, state, control, logs)  # after the training, nothing
    assert capsys.readouterr().out == ""


def test_evaluation_counts_tokens_because_long_batches_come_first():
    rows = Dataset.from_dict({"input_ids": [[1] * n for n in (9, 8, 5, 2, 1)]})
    loader = DataLoader(rows, batch_size=2, collate_fn=list)
    assert batch_costs(loader) == [17, 7, 1]
