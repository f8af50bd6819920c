"""Options of the alignment drawn at random together: training makes its steps, with finite losses, or says why it cannot."""

import json
import math
import random

import pytest
from safetensors.torch import load_file

import run_align
from helpers.task_scripts import DATA
from utils.alignment.language_sampling import LANGUAGE_SAMPLINGS
from utils.alignment.objectives import NEGATIVES, OBJECTIVES, UNITS
from utils.alignment.words import WORD_POOLINGS


# Values of each option besides its default. Of those for adjustment alone, of those for continual learning, and of both.
BOTH = {
    "alignment_unit": [*UNITS],
    "alignment_objective": [*OBJECTIVES],
    "contrastive_negatives": [*NEGATIVES],
    "alignment_layer": ["1", "0 -1", "1 2"],
    "freeze_layers": ["0", "front", "back"],
    "freeze_embeddings": ["true"],
    "use_lora": [""],
    "gradient_accumulation_steps": ["2"],
    "regularization_weight": ["0"],
    "word_pooling": [*WORD_POOLINGS],
    "include_special_tokens": ["false"],
    "bf16": [""],
}
ADJUSTMENT = {
    **BOTH,
    "language_sampling": [*LANGUAGE_SAMPLINGS],
    "realign_every": ["1"],
    "activation_checkpointing": [""],
    "eval_layers": ["0 1"],
}
CONTINUAL = {**BOTH, "alignment_every": ["2"], "alignment_batch_size": ["1", "3"], "log_gradient_cosine": ["1"]}


def refused(options: dict[str, str]) -> bool:
    """Whether an option has no effect beside the others, or leaves nothing to train."""
    unit = options.get("alignment_unit", "word")
    contrastive = options.get("alignment_objective", "mse" if unit == "word" else "contrastive") == "contrastive"
    return (
        ("contrastive_negatives" in options and not contrastive)
        or ("realign_every" in options and unit == "sentence")
        or ("freeze_layers" in options and "alignment_layer" in options)
        or ("freeze_embeddings" in options and "use_lora" in options)
        or (options.get("alignment_layer") == "0 -1" and ("freeze_embeddings" in options or "use_lora" in options))
    )


def drawn(axes: dict[str, list[str]], n: int, seed: int) -> list[dict[str, str]]:
    """Sets of two to five options that go together."""
    numbers, found = random.Random(seed), []
    while len(found) < n:
        names = numbers.sample(list(axes), numbers.randint(2, 5))
        options = {name: numbers.choice(axes[name]) for name in names}
        found += [] if refused(options) else [options]
    return found


def words_of(options: dict[str, str]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name}", *value.split())]


def assert_finite(folder) -> None:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    losses = [value for log in history for name, value in log.items() if "loss" in name]
    assert losses
    assert all(map(math.isfinite, losses))
    (weights,) = [load_file(path) for path in folder.glob("*model.safetensors")]
    assert all(weight.isfinite().all() for weight in weights.values())


@pytest.mark.parametrize("options", drawn(ADJUSTMENT, 12, seed=1), ids=lambda options: " ".join(words_of(options)))
def test_options_of_an_adjustment(run, tmp_path, model, options):
    run(run_align.main, "--model", model, "--languages", "hi", "ru", "--parallel_dataset", DATA / "parallel", "--max_train_pairs", 12,
        "--do_train", "--do_eval", "--validation_split_percentage", 5, "--max_steps", 2, "--use_cpu", "--disable_tqdm", "true",
        "--per_device_train_batch_size", 4, "--logging_steps", 1, "--output_dir", tmp_path / "out", *words_of(options))  # fmt: skip
    assert_finite(tmp_path / "out")


@pytest.mark.parametrize("options", drawn(CONTINUAL, 6, seed=2), ids=lambda options: " ".join(words_of(options)))
def test_options_of_continual_learning(fine_tune, options):
    pairs = (
        "--continual",
        "--languages",
        "hi",
        "ru",
        "--parallel_dataset",
        DATA / "parallel",
        "--max_train_pairs",
        12,
    )
    assert_finite(
        fine_tune("ner", "--do_train", "--max_steps", 2, "--max_train_samples", 16, *pairs, *words_of(options))
    )
