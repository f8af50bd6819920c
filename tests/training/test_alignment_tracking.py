"""AlignmentTracker: what it logs and when, and that it changes nothing; --track_alignment_every of the task scripts."""

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from helpers import tiny
from helpers.pairs import WORD_TOKENIZER, some_pairs
from helpers.paths import PROJECT
from helpers.processes import run_process
from helpers.task_scripts import CONTINUAL, DATA
from helpers.trainers import (
    StopAt,
    alignment_for,
    alignment_trainer_for,
    assert_same_weights,
    continual_trainer_for,
    model_for,
    weights_of,
)
from utils.core.errors import InputError, run_script
from utils.evaluation.word_distances import draw_triples, measure_words, with_vectors
from utils.models.layers import in_evaluation_mode
from utils.training.tracking import AlignmentTracker, TrackingArguments


pytestmark = pytest.mark.slow  # together more than a few seconds


NAMES = ("share_nearer", "median_related", "median_unrelated", "word_retrieval_accuracy")


def tracked(tmp_path, every=2, pairs=None, output="tracked", **arguments):
    """A trainer with a tracker; without if `every` is None."""
    trainer = continual_trainer_for(tmp_path, output, **arguments)
    if every:
        AlignmentTracker(pairs or {"hi": some_pairs(8)}, WORD_TOKENIZER, every).watch(trainer)
    return trainer


def logs(trainer) -> list[dict]:
    return [log for log in trainer.state.log_history if any(name.endswith("share_nearer") for name in log)]


class RandomStates(TrainerCallback):
    """Notes the random states after every step, and whether the model is in training mode."""

    def __init__(self) -> None:
        self.states = []

    def on_step_begin(self, args, state, control, **kwargs):
        drawn = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        self.states.append((drawn, [module.training for module in kwargs["model"].modules()]))


@pytest.mark.parametrize("continual", [False, True])
def test_training_is_the_same_bit_by_bit(tmp_path, continual):
    """Weights, losses, random states and modes, with dropout and a frozen module in evaluation mode."""
    trainers, states = [], []
    for every in (None, 1, 3):
        with_dropout = model_for("ForTokenClassification", dropout=0.3)
        with_dropout.base_model.embeddings.eval()
        options = {"alignment": alignment_for()} if continual else {}
        trainer = tracked(tmp_path, every, output=f"every{every}", model=with_dropout, num_train_epochs=2, **options)
        trainer.add_callback(noted := RandomStates())
        trainer.train()
        trainers.append(trainer)
        states.append(noted.states)
    plain, *others = trainers
    assert len(states[0]) == 6
    for trainer, noted in zip(others, states[1:]):
        assert_same_weights(weights_of(plain), weights_of(trainer), rtol=0, atol=0)
        assert noted == states[0]
        assert len(logs(trainer)) > 0
        losses = [
            [
                {name: log[name] for name in ("step", "loss", "grad_norm")}
                for log in t.state.log_history
                if "loss" in log
            ]
            for t in (plain, trainer)
        ]
        assert losses[0] == losses[1]
        assert len(losses[0]) == 6


def test_a_tracker_that_drops_out_would_be_noticed(tmp_path, monkeypatch):
    """The test above can fail: measuring in training mode draws random numbers."""
    monkeypatch.setattr("utils.training.tracking.in_evaluation_mode", lambda _: torch.no_grad())
    weights = []
    for every in (None, 1):
        trainer = tracked(tmp_path, every, output=f"every{every}", dropout=0.3)
        trainer.train()
        weights.append(weights_of(trainer))
    assert any(not torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())


def test_modes_are_those_of_before_even_after_an_error():
    encoder = tiny.model(head="").train()
    encoder.encoder.layer[0].eval()
    before = [module.training for module in encoder.modules()]
    with in_evaluation_mode(encoder):
        assert not any(module.training for module in encoder.modules())
    assert [module.training for module in encoder.modules()] == before
    with pytest.raises(RuntimeError, match="in between"), in_evaluation_mode(encoder):
        raise RuntimeError("in between")
    assert [module.training for module in encoder.modules()] == before


def test_what_is_logged_and_when(tmp_path):
    trainer = tracked(tmp_path, 2, max_steps=5, logging_steps=2, learning_rate=1e-2)
    (tracker,) = (c for c in trainer.callback_handler.callbacks if isinstance(c, AlignmentTracker))
    before = tracker.measure()
    trainer.train()
    found = logs(trainer)
    assert [log["step"] for log in found] == [0, 2, 4, 5]
    assert all({f"alignment_{name}" for name in NAMES} <= set(log) for log in found)
    assert found[0].items() >= before.items()
    assert found[-1]["alignment_median_related"] != before["alignment_median_related"]
    # The numbers of run_distances.py, for the model as it is at the end.
    pairs = some_pairs(8)
    triples = with_vectors(draw_triples(pairs), pairs, [WORD_TOKENIZER])
    same = measure_words(trainer.model.base_model.eval(), WORD_TOKENIZER, pairs, triples)[-1]["cosine"]
    assert found[-1]["alignment_share_nearer"] == same.share_nearer
    assert found[-1]["alignment_median_unrelated"] == pytest.approx(np.median(same.unrelated), rel=1e-5)
    # The loss of the steps that it shares a log with is still logged.
    assert [log["step"] for log in trainer.state.log_history if "loss" in log] == [2, 4]


def test_languages_have_numbers_of_their_own(tmp_path):
    trainer = tracked(tmp_path, 2, {"hi": some_pairs(8), "ru": some_pairs(5)}, max_steps=2)
    trainer.train()
    assert {f"alignment_{language}_{name}" for language in ("hi", "ru") for name in NAMES} <= set(logs(trainer)[0])


def test_a_run_that_stops_early_is_measured_at_its_end(tmp_path):
    trainer = tracked(tmp_path, 100, max_steps=6)
    trainer.add_callback(StopAt(3))
    trainer.train()
    assert [log["step"] for log in logs(trainer)] == [0, 3]


def test_a_resumed_run_goes_on(tmp_path):
    schedule = {"max_steps": 6, "save_strategy": "steps", "save_steps": 4, "dropout": 0.3}
    whole = tracked(tmp_path, 2, output="whole", **schedule)
    whole.train()
    resumed = tracked(tmp_path, 2, output="resumed", **schedule)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert_same_weights(weights_of(whole), weights_of(resumed), rtol=0, atol=0)
    assert [log["step"] for log in logs(resumed)] == [0, 2, 4, 6]
    assert logs(resumed) == logs(whole)


def test_it_goes_to_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    os.environ["TENSORBOARD_LOGGING_DIR"] = str(tmp_path / "board")
    try:
        tracked(tmp_path, 1, max_steps=2, report_to="tensorboard").train()
    finally:
        del os.environ["TENSORBOARD_LOGGING_DIR"]
    folder = next(path.parent for path in tmp_path.rglob("events.*"))
    board = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in board.Scalars("train/alignment_share_nearer")] == [0, 1, 2]


def test_mixed_precision(tmp_path):
    trainer = tracked(tmp_path, 1, max_steps=1, bf16=True)
    trainer.train()
    assert 0 < logs(trainer)[-1]["alignment_median_related"] < 2


def test_a_model_that_diverges_is_still_trained(tmp_path):
    trainer = tracked(tmp_path, 1, max_steps=2, learning_rate=1e30)
    trainer.args.on_nonfinite = "warn"
    trainer.train()
    assert [log["step"] for log in logs(trainer)] == [0, 1, 2]
    assert np.isnan(logs(trainer)[-1]["alignment_share_nearer"])


def test_adjustment_can_be_watched_too(tmp_path):
    trainer = alignment_trainer_for(tmp_path, num_train_epochs=1)
    AlignmentTracker({"hi": some_pairs(8)}, WORD_TOKENIZER, 1).watch(trainer)
    trainer.train()
    assert len(logs(trainer)) == trainer.state.global_step + 1
    assert logs(trainer)[-1]["alignment_median_related"] < logs(trainer)[0]["alignment_median_related"]


def test_nothing_to_track():
    no_links = some_pairs(4).map(lambda pair: {"links": []})
    with pytest.raises(InputError, match="A link of hi to track is missing: there is none in 4 held-out pairs"):
        AlignmentTracker({"hi": no_links}, WORD_TOKENIZER, 1)


# --- The task scripts --------------------------------------------------------------------------------------------

TRACK = ("--do_train", "--max_steps", 4, "--track_alignment_every", 2, "--language", "hi")
PARALLEL = ("--parallel_dataset", DATA / "parallel")


def history(folder: Path) -> list[dict]:
    state = json.loads((folder / "trainer_state.json").read_text())
    return [log for log in state["log_history"] if "alignment_share_nearer" in log]


@pytest.fixture
def held_out(tmp_path) -> Path:
    path = tmp_path / "held-out.jsonl"
    lines = (DATA / "xsr" / "hi.jsonl").read_text(encoding="utf-8").splitlines()[:20]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_plain_fine_tuning_is_watched_and_not_changed(fine_tune, held_out):  # noqa: F811
    plain = fine_tune("nli", "--do_train", "--max_steps", 4, output="plain")
    watched = fine_tune("nli", *TRACK, "--tracking_file", held_out, output="watched")
    assert [log["step"] for log in history(watched)] == [0, 2, 4]
    assert history(plain) == []
    one, other = (load_file(folder / "model.safetensors") for folder in (plain, watched))
    assert all(torch.equal(one[name], other[name]) for name in one)
    record = json.loads((watched / "run.json").read_text())
    assert record["regime"] == "plain"
    assert 0 < record["tracking_data"]["hi"]["pairs"] <= 20


def test_continual_learning_does_not_see_what_is_tracked(fine_tune):  # noqa: F811
    plain = fine_tune("ner", *TRACK, *PARALLEL, "--tracking_split_percentage", 20, output="plain")
    share = ("--tracking_split_percentage", 20)
    continual = fine_tune("ner", *TRACK, *CONTINUAL, *share, output="continual")
    untracked = fine_tune("ner", "--do_train", "--max_steps", 4, *CONTINUAL, output="untracked")
    records = [json.loads((folder / "run.json").read_text()) for folder in (plain, continual, untracked)]
    n_pairs = records[1]["parallel_data"]["hi"]["pairs"] + records[1]["tracking_data"]["hi"]["pairs"]
    assert n_pairs == records[2]["parallel_data"]["hi"]["pairs"]
    assert 0.1 < records[1]["tracking_data"]["hi"]["pairs"] / n_pairs < 0.3
    assert "parallel_data" not in records[0]
    assert [log["step"] for log in history(continual)] == [log["step"] for log in history(plain)] == [0, 2, 4]


def test_an_adapter_is_watched_at_work(fine_tune, held_out):  # noqa: F811
    lora = ("--use_lora", "--learning_rate", 1e-2)
    plain = fine_tune("nli", "--do_train", "--max_steps", 4, *lora, output="plain")
    watched = fine_tune("nli", *TRACK, "--tracking_file", held_out, *lora, output="watched")
    one, other = (load_file(folder / "adapter_model.safetensors") for folder in (plain, watched))
    assert all(torch.equal(one[name], other[name]) for name in one)
    medians = [log["alignment_median_related"] for log in history(watched)]
    assert len(set(medians)) == len(medians) == 3


def test_links_from_files(fine_tune, held_out, tmp_path):  # noqa: F811
    (tmp_path / "few.links").write_text("0-0 1-1\n" * 20)
    out = fine_tune(
        "nli", *TRACK, "--tracking_file", held_out, "--tracking_links_file", tmp_path / "few.links",
        "--max_tracking_pairs", 5,
    )  # fmt: skip
    assert json.loads((out / "run.json").read_text())["tracking_data"]["hi"]["pairs"] == 5


def message_of(fine_tune, *arguments) -> str:  # noqa: F811
    with pytest.raises(SystemExit) as end:
        run_script(lambda: fine_tune("nli", *arguments))
    return str(end.value.code)


def test_the_pairs_of_the_training_are_not_tracked(fine_tune, held_out, tmp_path):  # noqa: F811
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(held_out.read_bytes())
    trained = ("--continual", "--parallel_file", held_out)
    for same in (held_out, copy):
        message = message_of(fine_tune, *TRACK, *trained, "--tracking_file", same)
        assert "--tracking_file" in message
        assert "--tracking_split_percentage" in message
    assert history(
        fine_tune("nli", *TRACK, "--parallel_file", held_out, "--tracking_file", copy)
    )  # (nothing is trained on them)


def test_what_is_refused(fine_tune, held_out):  # noqa: F811
    every = ("--do_train", "--track_alignment_every", 2)
    assert "--language is missing" in message_of(fine_tune, *every, "--tracking_file", held_out)
    missing = message_of(fine_tune, *every, "--language", "hi")
    assert "--tracking_file or --parallel_dataset or --parallel_file is missing" in missing
    assert "There is no file nowhere" in message_of(fine_tune, *TRACK, "--tracking_file", "nowhere")
    message = message_of(fine_tune, "--do_train", "--tracking_file", held_out)
    assert "--tracking_file" in message
    assert "does nothing without --track_alignment_every" in message
    message = message_of(fine_tune, "--do_eval", "--track_alignment_every", 2, "--language", "hi", *PARALLEL)
    assert "--track_alignment_every does nothing without --do_train" in message
    assert "--alignment_weight 0.5 does nothing without --continual" in message_of(
        fine_tune, *TRACK, *PARALLEL, "--alignment_weight", 0.5
    )
    assert "--language ['hi']" in message_of(fine_tune, "--do_train", "--language", "hi").replace(
        "languages", "language"
    )
    none = message_of(fine_tune, *TRACK, *PARALLEL, "--tracking_split_percentage", 0.0001)
    assert "None of the 300 pairs of hi is held out" in none
    for wrong in (("--track_alignment_every", -1), ("--max_tracking_pairs", 0), ("--tracking_split_percentage", 100)):
        assert "must be" in message_of(fine_tune, *TRACK, *PARALLEL, *wrong)


def test_a_divided_model_is_refused(tmp_path):
    trainer = continual_trainer_for(tmp_path)
    trainer.is_fsdp_enabled = True
    with pytest.raises(InputError, match="without FSDP"):
        AlignmentTracker({"hi": some_pairs(8)}, WORD_TOKENIZER, 1).watch(trainer)


def test_off_is_off():
    assert TrackingArguments(track_alignment_every=0).held_out_share is None
    assert TrackingArguments().held_out_share is None
    assert TrackingArguments(track_alignment_every=1).held_out_share == 0.02
    assert TrackingArguments(track_alignment_every=1, tracking_file=["x"]).held_out_share is None


def test_two_processes_stay_in_step(tmp_path, model, held_out):  # noqa: F811
    """The first one measures, and the model is the one of a run without tracking."""
    environment = {"HF_DATASETS_CACHE": str(tmp_path / "cache")}
    weights = []
    for output, more in (("plain", ()), ("watched", (*TRACK[3:], "--tracking_file", held_out))):
        script = [PROJECT / "run_nli.py", "--model", model, "--dataset_name", DATA / "nli", "--do_train", "--max_steps", 4,
                  "--use_cpu", "--output_dir", tmp_path / output, "--per_device_train_batch_size", 4, *more]  # fmt: skip
        run_process(script, tmp_path / "log", environment, n_processes=2)
        weights.append(load_file(tmp_path / output / "model.safetensors"))
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())
    assert [log["step"] for log in history(tmp_path / "watched")] == [0, 2, 4]
