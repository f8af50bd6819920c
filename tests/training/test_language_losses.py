"""The alignment loss of each language: in the log, in results, after a resume."""

import pytest
import torch

from helpers.pairs import COLLATOR, some_rows
from helpers.trainers import StopAt, alignment_for, alignment_trainer_for, continual_trainer_for
from utils.alignment.objectives import LossWeights
from utils.alignment.pairs import AlignmentCollator


# Of 24 pairs: blocks of different size, so that means of means are wrong.
LANGUAGES = ["hi"] * 14 + ["ru"] * 7 + ["vi"] * 3


def naive_losses(trainer, name: str = "alignment_loss") -> dict[str, float]:
    """The mean loss over the links, or the sentence pairs, of each language, pair by pair."""
    losses: dict[str, list[float]] = {}
    for row in trainer.train_dataset:
        with torch.no_grad():
            terms = trainer.alignment_loss(trainer.model, COLLATOR([row]))
        of_row = terms.link_losses if name == "alignment_loss" else terms.sentence_losses
        losses.setdefault(row["language"], []).extend(of_row.tolist())
    return {f"{name}_{language}": sum(of_links) / len(of_links) for language, of_links in losses.items()}


def test_the_collator_numbers_the_languages_of_links():
    rows = some_rows(3, ["ru", "hi", "ru"])
    batch = AlignmentCollator(0, languages=["hi", "ru"])(list(rows))
    n_links = [len(row["links"]) for row in rows]
    assert batch["pair_languages"].tolist() == [1, 0, 1]
    assert batch["link_languages"].tolist() == [1] * n_links[0] + [0] * n_links[1] + [1] * n_links[2]
    assert "link_languages" not in AlignmentCollator(0, languages=["hi"])(list(rows))


@pytest.mark.parametrize(("size", "accumulated"), [(8, 1), (4, 2), (2, 4)])
def test_logged_losses_are_means_over_the_links_of_a_language(tmp_path, size, accumulated):
    trainer = alignment_trainer_for(
        tmp_path, languages=LANGUAGES, learning_rate=0.0, logging_steps=3, num_train_epochs=2,
        per_device_train_batch_size=size, gradient_accumulation_steps=accumulated,
    )  # fmt: skip
    expected = naive_losses(trainer)
    trainer.train()
    *epochs, whole = trainer.state.log_history
    assert len(epochs) == 2
    for log in epochs:  # each of one epoch
        assert {name: log[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert {name: whole[f"train_{name}"] for name in expected} == pytest.approx(expected, rel=1e-4)


def test_where_only_sentences_are_aligned_their_losses_are_logged(tmp_path):
    trainer = alignment_trainer_for(
        tmp_path, languages=LANGUAGES, weights=LossWeights(0, 1, 1), learning_rate=0.0, logging_steps=3, max_steps=3
    )
    expected = naive_losses(trainer, "sentence_loss")
    trainer.train()
    log, whole = trainer.state.log_history
    assert {name: log[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert {name: whole[f"train_{name}"] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert not [name for name in log if name.startswith("alignment_loss")]


def test_one_language_has_no_loss_of_its_own(tmp_path):
    trainer = alignment_trainer_for(tmp_path, max_steps=1)
    trainer.train()
    assert not [name for log in trainer.state.log_history for name in log if "alignment_loss_" in name]


def test_losses_of_the_run_are_the_same_after_a_resume(tmp_path):
    schedule = {"languages": LANGUAGES, "num_train_epochs": 3, "save_strategy": "steps", "save_steps": 4}
    whole = alignment_trainer_for(tmp_path, "whole", **schedule)
    expected = whole.train().metrics
    stopped = alignment_trainer_for(tmp_path, "stopped", logging_steps=3, **schedule)
    stopped.add_callback(StopAt(4))
    stopped.train()
    resumed = alignment_trainer_for(tmp_path, "stopped", **schedule)
    found = resumed.train(resume_from_checkpoint=str(tmp_path / "stopped" / "checkpoint-4")).metrics
    names = [f"train_alignment_loss_{language}" for language in ("hi", "ru", "vi")]
    assert {name: found[name] for name in names} == pytest.approx({name: expected[name] for name in names}, rel=1e-5)


def test_held_out_losses_of_each_language(tmp_path):
    held_out = {"hi": some_rows(6, ["hi"] * 6), "ru": some_rows(4, ["ru"] * 4)}
    trainer = alignment_trainer_for(tmp_path, languages=LANGUAGES, eval_dataset=held_out)
    metrics = trainer.evaluate()
    for language, rows in held_out.items():
        trainer.train_dataset = rows
        ((_, expected),) = naive_losses(trainer).items()
        assert metrics[f"eval_alignment_loss_{language}"] == pytest.approx(expected, rel=1e-5)


def test_losses_beside_a_task(tmp_path):
    alignment = alignment_for()
    languages = ["hi"] * 6 + ["ru"] * 6
    alignment.pairs = some_rows(12, languages)
    alignment.collator = AlignmentCollator(0, languages=["hi", "ru"])
    trainer = continual_trainer_for(tmp_path, alignment=alignment, max_steps=2)
    trainer.train()
    logged = set().union(*trainer.state.log_history)
    assert {"alignment_loss_hi", "alignment_loss_ru", "train_alignment_loss_hi"} <= logged
