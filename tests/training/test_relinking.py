"""Words that are linked anew by the model under training: links, batches, checkpoints, several processes."""

import statistics
from dataclasses import replace

import pytest
import torch

from helpers import tiny
from helpers.pairs import COLLATOR, WORD_TOKENIZER, some_pairs, some_rows
from helpers.trainers import StopAt, alignment_trainer_for, assert_same_weights, trained_weights_of
from utils.alignment.pairs import SPECIAL_TOKEN, PairEncoder, encode_pairs
from utils.core.errors import InputError
from utils.parallel.aligners.encoder import EncoderAligner
from utils.parallel.aligners.registry import AlignerArguments
from utils.parallel.choosing import informative_links
from utils.training import relinking
from utils.training.alignment_trainer import AlignmentTrainer
from utils.training.relinking import Relinker, check_realigning


def relinker_for(every: int = 2, n_pairs: int = 24, special: bool = True, **arguments) -> Relinker:
    return Relinker(
        every, {"hi": some_pairs(n_pairs)}, PairEncoder(WORD_TOKENIZER, special), AlignerArguments(**arguments)
    )


def links_in(relinker: Relinker) -> list:
    """The links of every pair that are in use; no pair before the words are linked anew."""
    return [relinker._of_row(row) for row in range(len(relinker._ends))]


def links_of(model, n_pairs: int = 24, layer: int | None = None) -> list:
    pairs = some_pairs(n_pairs)
    sides = list(pairs["source"]), list(pairs["english"])
    links = EncoderAligner(model, WORD_TOKENIZER, layer).align(*sides)
    return [informative_links(*pair) for pair in zip(*sides, links)]


@pytest.mark.parametrize("layer", [None, 1])
def test_the_links_are_those_of_a_fresh_aligner(tmp_path, layer):
    arguments = {"num_train_epochs": 2, "learning_rate": 1e-2, "dropout": 0.2}
    relinker = relinker_for(2, aligner_layer=layer)
    trainer = alignment_trainer_for(tmp_path, relinker=relinker, **arguments)
    trainer.add_callback(StopAt(5))
    trainer.train()
    stopped = alignment_trainer_for(tmp_path, relinker=relinker_for(2, aligner_layer=layer), **arguments)
    stopped.add_callback(StopAt(4))
    stopped.train()
    assert (
        links_in(relinker) == links_of(stopped.model, layer=layer) != links_of(alignment_trainer_for(tmp_path).model)
    )
    assert stopped.model.training


def test_a_limit_of_scores_holds():
    pairs = some_pairs(24)
    scores = EncoderAligner(tiny.model(head=""), WORD_TOKENIZER, 1).score(
        list(pairs["source"]), list(pairs["english"])
    )
    limit = statistics.median(score for links in scores for score in links.values())
    relinkers = [relinker_for(1, min_link_score=limit, aligner_layer=1) for limit in (None, limit)]
    for relinker in relinkers:
        relinker.begin_step(1, tiny.model(head=""))
    every, sure = (links_in(relinker) for relinker in relinkers)
    assert 0 < sum(map(len, sure)) < sum(map(len, every))


@pytest.mark.parametrize("special", [True, False])
def test_batches_have_the_links_of_now(special):
    """As if the rows had been encoded with them; a pair without links keeps its place and its words."""
    relinker, pairs = relinker_for(n_pairs=6, special=special), some_pairs(6)
    rows = relinker.numbered(encode_pairs(pairs, WORD_TOKENIZER, special))
    batch = COLLATOR([rows[k] for k in (4, 1, 2)])
    assert relinker.relinked(batch, rows, COLLATOR) is batch
    links = [[(0, 3)], [], [(1, 1), (2, 0)], [(5, 5)], [(3, 4), (4, 3)], [(0, 0)]]
    relinker._set(links)
    assert links_in(relinker) == links
    made = relinker.relinked(batch, rows, COLLATOR)
    expected = encode_pairs(pairs.remove_columns("links").add_column("links", links), WORD_TOKENIZER, special)
    expected = COLLATOR([{**expected[k], "row": k} for k in (4, 1, 2)])
    assert set(made) == set(expected) == set(batch)
    assert all(torch.equal(made[name], expected[name]) for name in expected)
    assert (made["source_spelling"] != SPECIAL_TOKEN).sum() == 4


def test_each_language_is_linked_for_itself():
    relinker = relinker_for(1)
    relinker = replace(relinker, pairs={"hi": some_pairs(4), "ru": some_pairs(3)})
    model = tiny.model(head="")
    relinker.begin_step(1, model)
    assert links_in(relinker) == links_of(model, 4) + links_of(model, 3)
    rows = relinker.numbered(some_rows(7, ["hi"] * 4 + ["ru"] * 3))
    collate = replace(COLLATOR, languages=["hi", "ru"])
    made = relinker.relinked(collate([rows[5], rows[0]]), rows, collate)
    special = 2
    n_links = [len(links_in(relinker)[row]) + special for row in (5, 0)]
    assert made["link_languages"].tolist() == [1] * n_links[0] + [0] * n_links[1]


def test_training_goes_on_without_any_link(tmp_path, monkeypatch):
    monkeypatch.setattr(relinking, "informative_links", lambda *pair: [])
    trainer = alignment_trainer_for(tmp_path, relinker=relinker_for(1, special=False))
    trainer.train()
    losses = [log["alignment_loss"] for log in trainer.state.log_history if "alignment_loss" in log]
    assert losses[0] > 0
    assert losses[1:] == [0, 0]


@pytest.mark.parametrize("sampling", ["random", "group_by_length"])
def test_the_order_of_the_pairs_is_that_without(tmp_path, sampling):
    seen = []
    for relinker in (None, relinker_for(2)):
        trainer = alignment_trainer_for(
            tmp_path, relinker=relinker, train_sampling_strategy=sampling, num_train_epochs=2
        )
        inputs, compute_loss = [], trainer.compute_loss
        trainer.compute_loss = lambda model, batch, *rest, seen=inputs, compute=compute_loss, **named: (
            seen.append(batch["english_input_ids"]) or compute(model, batch, *rest, **named)
        )
        trainer.train()
        seen.append(inputs)
    assert len(seen[0]) == len(seen[1]) == 6
    assert all(map(torch.equal, *seen))


@pytest.mark.parametrize("every", [2, 3, 5])
def test_resume_is_exact(tmp_path, every):
    """From a checkpoint whose model links anew, from one between two linkings, and from one before the first."""
    arguments = {
        "num_train_epochs": 3,
        "save_strategy": "steps",
        "save_steps": 4,
        "dropout": 0.2,
        "learning_rate": 1e-2,
    }
    whole = alignment_trainer_for(tmp_path, "whole", relinker=relinker_for(every), **arguments)
    whole.train()
    stopped = alignment_trainer_for(tmp_path, "stopped", relinker=relinker_for(every), **arguments)
    stopped.add_callback(StopAt(4))
    stopped.train()
    resumed = alignment_trainer_for(tmp_path, "stopped", relinker=relinker_for(every), **arguments)
    resumed.train(resume_from_checkpoint=str(tmp_path / "stopped" / "checkpoint-4"))
    assert links_in(resumed.relinker) == links_in(whole.relinker) != []
    assert_same_weights(trained_weights_of(whole), trained_weights_of(resumed), rtol=0, atol=0)
    other = alignment_trainer_for(tmp_path, "stopped", relinker=relinker_for(every + 1), **arguments)
    with pytest.raises(InputError, match="realign_every"):
        other.train(resume_from_checkpoint=str(tmp_path / "stopped" / "checkpoint-4"))


@pytest.mark.parametrize("n_processes", [2, 3, 30])
def test_every_process_links_a_share(monkeypatch, n_processes):
    model, links, shares = tiny.model(head=""), [], []
    monkeypatch.setattr(relinking, "gather_object", lambda mine: shares.append(mine) or mine)
    for process in range(n_processes):
        relinker = relinker_for(1)
        relinker.begin_step(1, model, n_processes, process)
        links += links_in(relinker)
    assert links == links_of(model)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_divided_model_is_refused(tmp_path, monkeypatch):
    made = AlignmentTrainer.create_accelerator_and_postprocess
    monkeypatch.setattr(
        AlignmentTrainer, "create_accelerator_and_postprocess",
        lambda trainer: (made(trainer), setattr(trainer, "is_fsdp_enabled", True)),
    )  # fmt: skip
    with pytest.raises(InputError, match="FSDP"):
        alignment_trainer_for(tmp_path, relinker=relinker_for())


@pytest.mark.parametrize(
    ("links", "trains"),
    [
        ({"aligner": "statistical"}, True),
        ({"aligner": "encoder+statistical"}, True),
        ({"links_file": ["x"]}, True),
        ({}, False),
    ],
)
def test_what_it_does_not_go_with(links, trains):
    with pytest.raises(InputError, match="--realign_every"):
        check_realigning(2, AlignerArguments(**links), trains)
    check_realigning(0, AlignerArguments(**links), trains)
    check_realigning(2, AlignerArguments(aligner="encoder"), True)
