"""Losses of words and sentences, and negatives from the whole of an optimizer step: naive loops, parts that equal the whole."""

import math

import pytest
import torch

from helpers import tiny
from helpers.pairs import COLLATOR, WORD_TOKENIZER, some_pairs, some_rows
from helpers.trainers import (
    alignment_for,
    alignment_trainer_for,
    assert_same_weights,
    continual_trainer_for,
    trained_weights_of,
    weights_of,
)
from utils.alignment.losses import AlignmentLoss
from utils.alignment.negatives import PartOfStep
from utils.alignment.objectives import ContrastiveObjective, CosineDistance, LossWeights, MeanSquaredError


WORDS, SENTENCES, BOTH = LossWeights(1.0, 0.5), LossWeights(0.0, 0.5, 1.0), LossWeights(1.0, 0.5, 1.0)
OBJECTIVES = [
    MeanSquaredError(),
    CosineDistance(),
    ContrastiveObjective(0.1, "other"),
    ContrastiveObjective(0.5, "both"),
]


# --- Literal pairs, naive loops ---


def vectors_of(model, words: list[str]) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
    """The vector of a sentence, alone in its batch, and those of its words; -1 and n are [CLS] and [SEP]."""
    tokens = WORD_TOKENIZER([words])
    with torch.no_grad():
        states = model(input_ids=torch.tensor(tokens["input_ids"])).last_hidden_state[0]
    word_ids = torch.tensor(tokens["word_ids"][0])
    return states.mean(0), {word: states[word_ids == k].mean(0) for k, word in enumerate(tokens["words"][0])}


def naive_loss(objective, pairs: list[tuple]) -> float:
    """The sum over pairs (vector, spelling, right vector, right spelling)."""
    if isinstance(objective, MeanSquaredError):
        return sum(((x - y) ** 2).mean().item() for x, _, y, _ in pairs)
    if isinstance(objective, CosineDistance):
        return sum(1 - (x @ y / x.norm() / y.norm()).item() for x, _, y, _ in pairs)
    total = 0.0
    for i, (x, x_spelling, y, y_spelling) in enumerate(pairs):
        for query, spelling, right, right_spelling, side in (
            (x, x_spelling, y, y_spelling, 0),
            (y, y_spelling, x, x_spelling, 1),
        ):
            logits = [torch.cosine_similarity(query, right, dim=0).item() / objective.temperature]
            for k, other in enumerate(pairs):
                theirs, own = other[2 - 2 * side : 4 - 2 * side], other[2 * side : 2 * side + 2]
                both = objective.contrastive_negatives == "both"
                for vector, candidate in (theirs, own) if both else (theirs,):
                    if k != i and candidate != right_spelling and not (both and candidate == spelling):
                        logits.append(torch.cosine_similarity(query, vector, dim=0).item() / objective.temperature)
            total += (math.log(sum(map(math.exp, logits))) - logits[0]) / 2
    return total


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_losses_of_words_and_sentences_equal_a_loop(objective):
    """Among eight pairs sentences and words repeat, on the same side and across: they are no negatives."""
    f, pairs = tiny.model(head="", seed=1), some_pairs(8)
    links, sentences = [], []
    for pair in pairs:
        (source, of_source), (english, of_english) = (vectors_of(f, pair[side]) for side in ("source", "english"))
        sentences.append((source, " ".join(pair["source"]), english, " ".join(pair["english"])))
        ends = [(len(pair["source"]), len(pair["english"])), (-1, -1)]
        for i, j in [*pair["links"], *ends]:
            spelling = [
                words[k] if 0 <= k < len(words) else "special"
                for k, words in ((i, pair["source"]), (j, pair["english"]))
            ]
            links.append((of_source[i], spelling[0], of_english[j], spelling[1]))
    loss = AlignmentLoss(objective, tiny.model(head="", seed=2), weights=BOTH)
    with torch.no_grad():
        terms = loss(f, COLLATOR(list(some_rows(8))))
    assert (terms.counts[0], terms.counts[2]) == (len(links), 8)
    assert terms.alignment.item() == pytest.approx(naive_loss(objective, links), rel=1e-4)
    assert terms.sentence.item() == pytest.approx(naive_loss(objective, sentences), rel=1e-4)


def test_only_what_has_a_weight_is_computed():
    batch, f, f0 = COLLATOR(list(some_rows())), tiny.model(head="", seed=1), tiny.model(head="", seed=2)
    with torch.no_grad():
        both, sentences = (
            AlignmentLoss(ContrastiveObjective(), f0, weights=weights)(f, batch) for weights in (BOTH, SENTENCES)
        )
    assert sentences.alignment == 0
    assert sentences.link_losses is None
    assert sentences.sentence == both.sentence > 0
    assert sentences.regularization == both.regularization > 0


# --- Parts of an optimizer step ---

DESCENT = {"optim": "sgd", "learning_rate": 0.1}


@pytest.mark.parametrize("objective", OBJECTIVES[2:], ids=str)
@pytest.mark.parametrize("weights", [WORDS, SENTENCES, BOTH], ids=("word", "sentence", "both"))
def test_accumulated_batches_equal_one_whole(tmp_path, objective, weights):
    """Each is compared with the words and sentences of the others, however unevenly they have them."""
    how = {"objective": objective, "weights": weights, "n_pairs": 16, **DESCENT}
    whole = alignment_trainer_for(tmp_path, per_device_train_batch_size=8, **how)
    whole.train()
    for size in (4, 1):
        accumulated = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 8 // size}
        parts = alignment_trainer_for(tmp_path, **accumulated, **how)
        parts.train()
        assert_same_weights(trained_weights_of(whole), trained_weights_of(parts), rtol=1e-5, atol=1e-5)
        for name in ("loss", *weights.losses()):
            logged = [[log[name] for log in t.state.log_history if name in log] for t in (whole, parts)]
            assert len(logged[0]) == 2
            assert logged[0] == pytest.approx(logged[1], rel=1e-4)


@pytest.mark.parametrize("settings", [{}, {"batch_size": 3}, {"every": 2}], ids=str)
def test_parts_of_a_task_s_step_equal_the_whole(tmp_path, settings):
    """Also if some parts have no pairs, or some steps."""
    runs = []
    for size in (8, 4, 2):
        alignment = alignment_for(weights=BOTH, **settings)
        alignment.loss.objective = ContrastiveObjective(contrastive_negatives="both")
        sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 8 // size}
        runs.append(
            continual_trainer_for(
                tmp_path, alignment=alignment, train_sampling_strategy="sequential", **sizes, **DESCENT
            )
        )
        runs[-1].train()
    for parts in runs[1:]:
        assert_same_weights(weights_of(runs[0]), weights_of(parts), rtol=1e-5, atol=1e-5)
        for log, other in zip(runs[0].state.log_history[:-1], parts.state.log_history):
            assert {name: other[name] for name in log if name.endswith("loss")} == pytest.approx(
                {name: loss for name, loss in log.items() if name.endswith("loss")}, rel=1e-4
            )


@pytest.mark.parametrize("how", [{}, {"activation_checkpointing": True}, {"bf16": True}], ids=str)
def test_dropout_is_the_same_in_both_passes(tmp_path, monkeypatch, how):
    """What the other batches of the step were compared with is what a batch computes itself."""
    first, second = [], []
    of_others = PartOfStep.of_others
    monkeypatch.setattr(
        PartOfStep,
        "of_others",
        lambda part, own: first.append(part.others) or second.append(own) or of_others(part, own),
    )
    trainer = alignment_trainer_for(
        tmp_path, objective=ContrastiveObjective(), weights=BOTH, dropout=0.3, max_steps=1,
        per_device_train_batch_size=4, gradient_accumulation_steps=2, **how,
    )  # fmt: skip
    trainer.train()
    assert len(first) == 2
    for name in ("alignment_loss", "sentence_loss"):
        for own, (theirs,) in zip(second, reversed(first)):
            torch.testing.assert_close(own[name].source[0].detach(), theirs[name].source[0], rtol=0, atol=0)
            torch.testing.assert_close(own[name].english[0].detach(), theirs[name].english[0], rtol=0, atol=0)


def test_more_passes_only_where_they_are_needed(tmp_path):
    """One batch per step, or an objective without negatives: one pass per side, and one of f0."""
    for objective, accumulated, n_passes in ((OBJECTIVES[0], 2, 2), (OBJECTIVES[3], 1, 2), (OBJECTIVES[3], 2, 4)):
        trainer = alignment_trainer_for(
            tmp_path, objective=objective, max_steps=1, gradient_accumulation_steps=accumulated
        )
        passes = []
        trainer.model.register_forward_hook(lambda *_, passes=passes: passes.append(1))
        trainer.train()
        assert len(passes) == accumulated * n_passes


def test_evaluation_measures_sentences(tmp_path):
    rows = some_rows(7)
    trainer = alignment_trainer_for(tmp_path, objective=OBJECTIVES[3], weights=SENTENCES, eval_dataset={"hi": rows})
    metrics = trainer.evaluate()
    with torch.no_grad():
        terms = trainer.alignment_loss(trainer.model, COLLATOR(list(rows)))
    assert metrics["eval_sentence_loss"] == pytest.approx(terms.sentence.item() / 7, rel=1e-5)
    weighted = 0.5 * metrics["eval_regularization_loss"] + metrics["eval_sentence_loss"]
    assert metrics["eval_loss"] == pytest.approx(weighted, rel=1e-5)
    assert metrics["eval_alignment_loss"] > 0
    assert 0 <= metrics["eval_word_retrieval_accuracy"] <= 1
    assert "eval_sentence_loss" not in alignment_trainer_for(tmp_path, eval_dataset=rows).evaluate()
