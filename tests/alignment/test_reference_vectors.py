"""The frozen model is asked once for pairs that are seen more than once."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from datasets import load_from_disk

import utils.alignment.reference_vectors
from helpers import tiny, trainers
from helpers.pairs import COLLATOR, WORD_TOKENIZER, some_pairs
from utils.alignment.losses import AlignmentLoss
from utils.alignment.objectives import MeanSquaredError
from utils.alignment.pairs import encode_pairs
from utils.alignment.reference_vectors import with_reference_vectors
from utils.models.adapters import AdapterOff, with_lora
from utils.models.encoders import load_encoder


class Counted:
    """A model that counts the sentences it is given."""

    def __init__(self, model) -> None:
        self.model, self.config, self.n_sentences = model, model.config, 0
        self.named_parameters = model.named_parameters

    def __call__(self, **inputs):
        self.n_sentences += len(inputs["input_ids"])
        return self.model(**inputs)


@pytest.fixture
def accelerator() -> Accelerator:
    return of_precision("no")


def of_precision(name: str) -> Accelerator:
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=True, mixed_precision=name)


def loss_of(model) -> AlignmentLoss:
    return AlignmentLoss(MeanSquaredError(), model)


def test_the_loss_is_the_same(accelerator):
    rows = encode_pairs(some_pairs(40), WORD_TOKENIZER)
    loss, encoder = loss_of(tiny.model(head="", seed=5)), tiny.model(head="", seed=1)
    seen = with_reference_vectors(rows, loss, COLLATOR, accelerator)
    assert set(seen.column_names) - set(rows.column_names) == {"reference_float32"}
    for chosen in ([0, 1, 2], [39, 5], [17]):
        plain, spared = COLLATOR(rows.select(chosen)), COLLATOR(seen.select(chosen))
        expected = loss(encoder, plain)
        loss.reference_model = None  # it is not asked
        found = loss(encoder, spared)
        loss.reference_model = tiny.model(head="", seed=5)
        assert expected.regularization.item() > 0.1
        torch.testing.assert_close(found.regularization, expected.regularization, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.alignment, expected.alignment)


def test_half_precision_where_the_passes_are():
    rows = encode_pairs(some_pairs(10), WORD_TOKENIZER)
    model = tiny.model(head="", seed=5)
    seen = with_reference_vectors(rows, loss_of(model), COLLATOR, of_precision("bf16"))
    vectors = COLLATOR(seen.select(range(10)))["english_before"]
    assert vectors.dtype == torch.float16
    exact = COLLATOR(with_reference_vectors(rows, loss_of(model), COLLATOR, of_precision("no")).select(range(10)))
    torch.testing.assert_close(vectors.float(), exact["english_before"], rtol=0.05, atol=0.05)


def test_another_run_finds_them(tmp_path, accelerator):
    encode_pairs(some_pairs(40), WORD_TOKENIZER).save_to_disk(tmp_path / "rows")
    asked = []
    for seed in (5, 5, 6):
        model = Counted(tiny.model(head="", seed=seed).eval())
        rows = load_from_disk(tmp_path / "rows")
        seen = with_reference_vectors(rows, loss_of(model), COLLATOR, accelerator)
        assert seen.cache_files
        asked.append(model.n_sentences)
    assert asked == [40, 0, 40], "of the same model; another one is asked"


def test_a_full_disk_is_not_filled(accelerator, monkeypatch, caplog):
    rows = encode_pairs(some_pairs(10), WORD_TOKENIZER)
    usage = type("usage", (), {"free": 100})
    monkeypatch.setattr(utils.alignment.reference_vectors.shutil, "disk_usage", lambda folder: usage)
    assert with_reference_vectors(rows, loss_of(tiny.model(head="")), COLLATOR, accelerator) is rows
    assert "have no room" in caplog.text


def test_below_an_adapter(tmp_path, accelerator):
    base = tiny.checkpoint(tmp_path / "base")
    rows = encode_pairs(some_pairs(10), WORD_TOKENIZER)
    adapted = with_lora(load_encoder(base), base)
    vectors = [
        COLLATOR(with_reference_vectors(rows, loss, COLLATOR, accelerator).select(range(10)))["english_before"]
        for loss in (loss_of(AdapterOff(adapted)), loss_of(load_encoder(base)))
    ]
    assert vectors[0].equal(vectors[1])


# --- In training ---


def test_several_passes_over_the_pairs(tmp_path, monkeypatch):
    """The same weights with and without, and no pass of the frozen model after the first sight."""
    weights = []
    for cached in (True, False):
        trainer = trainers.alignment_trainer_for(
            tmp_path, optim="sgd", learning_rate=0.1, num_train_epochs=3, dropout=0.1
        )
        trainer.alignment_loss.reference_model = counted = Counted(trainer.alignment_loss.reference_model)
        if not cached:
            monkeypatch.setattr("utils.training.steps.with_reference_vectors", lambda pairs, *others: pairs)
        trainer.train()
        assert counted.n_sentences == (24 if cached else 72)
        weights.append(trainers.trained_weights_of(trainer))
    trainers.assert_same_weights(*weights, rtol=1e-4, atol=1e-6)


def test_one_pass_needs_no_copy(tmp_path):
    trainer = trainers.alignment_trainer_for(tmp_path)
    trainer.train()
    assert "reference_float32" not in trainer.train_dataset.column_names


def test_continual_learning(tmp_path):
    """12 pairs, drawn 4 at a step."""
    for n_steps, n_asked in ((2, 8), (3, 12), (9, 12)):
        alignment = trainers.alignment_for()
        alignment.loss.reference_model = counted = Counted(alignment.loss.reference_model)
        trainers.continual_trainer_for(tmp_path, alignment=alignment, max_steps=n_steps).train()
        assert counted.n_sentences == n_asked


def test_continual_learning_comes_to_the_same(tmp_path, monkeypatch):
    weights = []
    for cached in (True, False):
        if not cached:
            monkeypatch.setattr("utils.training.steps.with_reference_vectors", lambda pairs, *others: pairs)
        trainer = trainers.continual_trainer_for(tmp_path, alignment=trainers.alignment_for(), max_steps=6, optim="sgd",
                                             learning_rate=0.1, dropout=0.1)  # fmt: skip
        trainer.train()
        weights.append(trainers.weights_of(trainer))
    trainers.assert_same_weights(*weights, rtol=1e-4, atol=1e-6)


def test_the_bytes_are_the_vectors(accelerator):
    rows = encode_pairs(some_pairs(3), WORD_TOKENIZER)
    model = tiny.model(head="", seed=5)
    seen = with_reference_vectors(rows, loss_of(model), COLLATOR, accelerator)
    stored = np.frombuffer(seen[1]["reference_float32"], np.float32).reshape(-1, 16)
    assert len(stored) == max(rows[1]["english_word_ids"]) + 1
