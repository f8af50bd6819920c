"""The warning where bfloat16 is slower than fp32: from passes that do not change the training."""

from itertools import accumulate, cycle

import pytest
import torch

from helpers.trainers import alignment_trainer_for, assert_same_weights, trained_weights_of
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


@pytest.mark.parametrize(("bf16", "fp32", "warns"), [(BF16, FP32, True), (FP32, BF16, False), (2.1, 2.0, False)])
def test_the_warning_names_both_speeds(tmp_path, clock, caplog, bf16, fp32, warns):
    clock(bf16, fp32)
    trainer = alignment_trainer_for(tmp_path, bf16=True, max_steps=1)
    trainer.train()
    said = [record.getMessage() for record in caplog.records if record.name == precision.__name__]
    assert len(said) == warns
    if warns:
        assert f"{8 / bf16:.1f} pairs" in said[0]
        assert f"{8 / fp32:.1f}" in said[0]


def test_nothing_is_timed_in_fp32(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "perf_counter", lambda: pytest.fail("timed"))
    alignment_trainer_for(tmp_path, max_steps=1).train()


@pytest.mark.parametrize("objective", [None, ContrastiveObjective()])
def test_the_training_is_the_same_bit_for_bit(tmp_path, monkeypatch, objective):
    weights = []
    for name, module in (("timed", precision), ("untimed", None)):
        if not module:
            monkeypatch.setattr("utils.training.alignment_trainer.warn_if_bf16_is_slower", lambda *_: None)
        trainer = alignment_trainer_for(tmp_path, name, dropout=0.2, bf16=True, max_steps=3, objective=objective)
        torch.manual_seed(0)
        trainer.train()
        weights.append(trained_weights_of(trainer))
    assert_same_weights(*weights, rtol=0, atol=0)


def test_no_gradient_stays(tmp_path, clock):
    clock(BF16, FP32)
    trainer = alignment_trainer_for(tmp_path, bf16=True)
    batch = trainer._usual_batch(trainer.train_dataset)
    before = torch.random.get_rng_state()
    precision.warn_if_bf16_is_slower(trainer.model, trainer.alignment_loss, batch, trainer.accelerator.autocast)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
