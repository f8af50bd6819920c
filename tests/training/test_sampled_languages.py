"""Trainings in which languages are drawn: the same batches after a resume, and in how many parts ever."""

import json
from collections import Counter

import pytest

from helpers.bandit import naive_shares
from helpers.pairs import some_rows
from helpers.trainers import StopAt, alignment_for, alignment_trainer_for, assert_same_weights, trained_weights_of
from utils.alignment.continual import ContinualAlignment
from utils.alignment.language_sampling import LanguageSampling
from utils.alignment.losses import AlignmentLoss
from utils.alignment.objectives import ContrastiveObjective
from utils.alignment.pairs import AlignmentCollator


# Of 48 pairs, so that an epoch has six steps of eight.
LANGUAGES = ["hi"] * 30 + ["ru"] * 13 + ["vi"] * 5


def trainer_for(tmp_path, output, sampling, **arguments):
    settings = {"n_pairs": 48, "languages": LANGUAGES, "sampling": LanguageSampling(sampling), "num_train_epochs": 3}
    return alignment_trainer_for(tmp_path, output, **{**settings, **arguments})


@pytest.mark.parametrize("order", ["random", "group_by_length"])
@pytest.mark.parametrize("sampling", ["uniform", "ucb"])
@pytest.mark.parametrize("stop", [6, 8])
def test_resume_is_exact(tmp_path, sampling, order, stop):
    """At the end of an epoch, and between two updates of the bandit with a batch prepared in advance."""
    schedule = {"save_strategy": "steps", "save_steps": stop, "dropout": 0.2, "train_sampling_strategy": order}
    whole = trainer_for(tmp_path, "whole", sampling, **schedule)
    whole.train()
    stopped = trainer_for(tmp_path, "stopped", sampling, **schedule)
    stopped.add_callback(StopAt(stop))
    stopped.train()
    resumed = trainer_for(tmp_path, "stopped", sampling, **schedule)
    resumed.train(resume_from_checkpoint=str(tmp_path / "stopped" / f"checkpoint-{stop}"))
    assert resumed.state.global_step == 18
    assert_same_weights(trained_weights_of(whole), trained_weights_of(resumed), rtol=0, atol=0)
    if sampling == "ucb":
        assert resumed.bandit.state() == whole.bandit.state()


@pytest.mark.parametrize("sampling", ["uniform", "ucb"])
def test_accumulated_batches_are_the_whole_ones(tmp_path, sampling):
    runs = []
    for size, accumulated in ((8, 1), (2, 4)):
        run = trainer_for(
            tmp_path, "run", sampling, optim="sgd", learning_rate=0.1, per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulated,
        )  # fmt: skip
        run.train()
        runs.append(run)
    whole, parts = runs
    assert_same_weights(trained_weights_of(whole), trained_weights_of(parts), rtol=1e-4, atol=1e-5)
    if sampling == "ucb":
        assert whole.bandit.drawn == parts.bandit.drawn
        assert whole.bandit.shares.tolist() == pytest.approx(parts.bandit.shares.tolist(), rel=1e-4)


def test_the_bandit_goes_by_the_losses_of_all_steps_before(tmp_path, monkeypatch):
    steps: list[tuple[list[int], list[float]]] = []
    compute = AlignmentLoss.__call__

    def recorded(self, model, batch, *context):
        terms = compute(self, model, batch, *context)
        steps.append((batch["link_languages"].tolist(), terms.link_losses.tolist()))
        return terms

    monkeypatch.setattr(AlignmentLoss, "__call__", recorded)
    trainer = trainer_for(tmp_path, "run", "ucb", objective=ContrastiveObjective())
    trainer.train()
    assert [languages[0] for languages, _ in steps] == trainer.bandit.drawn
    assert all(len(set(languages)) == 1 for languages, _ in steps)
    # The last update was before step 15 (from 0), for which a batch had been prepared.
    rewards = [[loss for of, losses in steps[:15] for k, loss in zip(of, losses) if k == n] for n in range(3)]
    expected = naive_shares(rewards, trainer.bandit.drawn[:16])
    assert trainer.bandit.shares.tolist() == pytest.approx(expected, rel=1e-5)


def test_pairs_beside_a_task():
    """Their languages are drawn pair by pair, by seed and step alone."""
    languages = ["hi"] * 9 + ["ru"] * 3
    drawn = {"size": Counter(), "uniform": Counter()}
    for name, counts in drawn.items():
        alignment = ContinualAlignment(
            some_rows(12, languages), alignment_for().loss, AlignmentCollator(0, languages=["hi", "ru"]), batch_size=8,
            sampling=LanguageSampling(name),
        )  # fmt: skip
        for step in range(100):
            (batch,) = alignment.batches(step, 1, [0])
            parts = alignment.batches(step, 2, [0, 1])
            counts.update(batch["pair_languages"].tolist())
            assert batch["pair_languages"].sum() == sum(part["pair_languages"].sum() for part in parts)
    assert drawn["size"][0] / 800 == pytest.approx(0.75, abs=0.05)
    assert drawn["uniform"][0] / 800 == pytest.approx(0.5, abs=0.05)


def test_another_sampling_is_another_run(tmp_path):
    trainer = trainer_for(tmp_path, "run", "uniform", max_steps=1, save_strategy="steps", save_steps=1)
    trainer.train()
    identity = json.loads((tmp_path / "run" / "checkpoint-1" / "run_state.json").read_text())["run"]
    assert identity["language_sampling"]["name"] == "uniform"
