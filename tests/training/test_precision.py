"""The warning where bfloat16 is slower than fp32: from passes that do not change the training."""

from itertools import accumulate, cycle

import pytest
import torch
from datasets import Dataset

from helpers.trainers import (
    alignment_for,
    alignment_trainer_for,
    assert_same_weights,
    continual_trainer_for,
    trained_weights_of,
)
from utils.alignment.objectives import ContrastiveObjective
from utils.training import precision


BF16, FP32 = 3.0, 2.0  # seconds of a pass


@pytest.fixture
def clock(monkeypatch):
    """Set how long passes in bfloat16 and in fp32 take, which take turns."""

    def set_clock(bf16: float, fp32: float) -> None:
        times = accumulate(cycle([0.0, bf16, 0.0, fp32]))
        monkeypatch.setattr(precision, "perf_counter", lambda: next(times))

    return set_clock


def task_trainer_for(tmp_path, output="run", objective=None, head="ForTokenClassification", **arguments):
    """A trainer of a task, whose rows have a length as those of the scripts have."""
    trainer = continual_trainer_for(tmp_path, output, head, **arguments)
    rows: Dataset = trainer.train_dataset
    trainer.train_dataset = rows.add_column("length", [len(ids) for ids in rows["input_ids"]])
    return trainer


def continual_for(tmp_path, output="run", objective=None, **arguments):
    return task_trainer_for(tmp_path, output, alignment=alignment_for(), **arguments)


def classifier_for(tmp_path, output="run", objective=None, **arguments):
    return task_trainer_for(tmp_path, output, head="ForSequenceClassification", **arguments)


def questions_for(tmp_path, output="run", objective=None, **arguments):
    return task_trainer_for(tmp_path, output, head="ForQuestionAnswering", **arguments)


TRAINERS = [alignment_trainer_for, task_trainer_for, continual_for, classifier_for, questions_for]


@pytest.mark.parametrize("trainer_for", TRAINERS)
@pytest.mark.parametrize(("bf16", "fp32", "warns"), [(BF16, FP32, True), (FP32, BF16, False), (2.1, 2.0, False)])
def test_every_trainer_warns_where_bf16_is_slower(tmp_path, clock, caplog, trainer_for, bf16, fp32, warns):
    clock(bf16, fp32)
    trainer_for(tmp_path, bf16=True, max_steps=1).train()
    said = [record.getMessage() for record in caplog.records if record.name == precision.__name__]
    assert len(said) == warns
    if warns:
        assert f"{bf16:.2f} s" in said[0]
        assert f"{fp32:.2f} s" in said[0]


@pytest.mark.parametrize("trainer_for", TRAINERS)
def test_nothing_is_timed_in_fp32(tmp_path, monkeypatch, trainer_for):
    monkeypatch.setattr(precision, "perf_counter", lambda: pytest.fail("timed"))
    trainer_for(tmp_path, max_steps=1).train()


@pytest.mark.parametrize("objective", [None, ContrastiveObjective()])
@pytest.mark.parametrize("trainer_for", [alignment_trainer_for, continual_for])
def test_the_training_is_the_same_bit_for_bit(tmp_path, monkeypatch, trainer_for, objective):
    weights = []
    for name, module in (("timed", precision), ("untimed", None)):
        if not module:
            monkeypatch.setattr("utils.training.base_trainer.warn_if_bf16_is_slower", lambda *_: None)
        torch.manual_seed(0)
        trainer = trainer_for(tmp_path, name, dropout=0.2, bf16=True, max_steps=3, objective=objective)
        torch.manual_seed(0)
        trainer.train()
        weights.append(trained_weights_of(trainer))
    assert_same_weights(*weights, rtol=0, atol=0)


@pytest.mark.parametrize("trainer_for", [alignment_trainer_for, task_trainer_for])
def test_no_gradient_stays(tmp_path, clock, trainer_for):
    clock(BF16, FP32)
    trainer = trainer_for(tmp_path, bf16=True)
    before = torch.random.get_rng_state()
    trainer._compare_precisions()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
