"""Tokenizers that do not fit their model, or that pad in other ways."""

import json
from pathlib import Path

import pytest
import torch

import run_align
from helpers import tiny
from helpers.paths import DATA
from helpers.task_scripts import QUICK
from utils.core.errors import InputError
from utils.models.adapters import LoraArguments, save_adapter, with_lora
from utils.models.encoders import empty_encoder, load_encoder
from utils.models.tokenizers import encoder_max_length, load_tokenizer, sentence_length_limit


def change(folder: str | Path, **settings: object) -> str:
    """Change settings of a tokenizer; None removes one."""
    path = Path(folder, "tokenizer_config.json")
    changed = {**json.loads(path.read_text()), **settings}
    path.write_text(json.dumps({name: value for name, value in changed.items() if value is not None}))
    return str(folder)


# --- No tokenizer ---


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_a_model_without_a_tokenizer_is_refused(tmp_path, architecture):
    tiny.model(architecture).save_pretrained(tmp_path)
    with pytest.raises(InputError):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("kept", [["tokenizer_config.json"], []])
def test_a_tokenizer_without_a_vocabulary_is_refused(tmp_path, kept):
    folder = Path(tiny.checkpoint(tmp_path))
    for file in folder.glob("*token*.json"):
        if file.name not in kept:
            file.unlink()
    with pytest.raises(InputError):
        load_tokenizer(str(folder))


@pytest.mark.parametrize("content", ["[1]", "5", "null", '"text"', "{", ""])
@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_json_of_a_tokenizer(tmp_path, file, content):
    """It is refused, or read as if the file were not there; never a traceback."""
    folder = Path(tiny.checkpoint(tmp_path))
    (folder / file).write_text(content)
    try:
        tokenizer = load_tokenizer(str(folder))
    except InputError:
        return
    assert tokenizer("Anna")["input_ids"] == tiny.tokenizer()("Anna")["input_ids"]


def test_an_adapter_has_the_tokenizer_of_its_base_model(tmp_path):
    base = tiny.checkpoint(tmp_path / "base")
    save_adapter(with_lora(load_encoder(base), base, LoraArguments(use_lora=True)), tmp_path / "adapter")
    assert load_tokenizer(str(tmp_path / "adapter")).get_vocab() == tiny.tokenizer().get_vocab()


# --- A vocabulary that is larger than the embeddings ---


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("load", [load_encoder, empty_encoder])
def test_every_token_has_an_embedding(tmp_path, architecture, load):
    tokenizer = tiny.tokenizer()
    largest = max(tokenizer.get_vocab().values())
    for rows in (largest + 1, largest):
        folder = tiny.checkpoint(tmp_path / str(rows), architecture, vocab_size=rows)
        encoder = load(folder)
        if rows > largest:
            assert encoder_max_length(tokenizer, encoder) == 64
            continue
        for limit in (encoder_max_length, lambda *both: sentence_length_limit(None, *both)):
            with pytest.raises(InputError, match=f"{largest}.* {rows} "):
                limit(tokenizer, encoder)


# --- Padding ---


@pytest.mark.parametrize("side", ["padding_side", "truncation_side"])
def test_the_right_side_is_used(tmp_path, side, caplog):
    folder = change(tiny.checkpoint(tmp_path), **{side: "left"})
    with caplog.at_level("INFO"):
        tokenizer = load_tokenizer(folder)
    assert (tokenizer.padding_side, tokenizer.truncation_side) == ("right", "right")
    assert sum(side in record.message for record in caplog.records) == 1
    batch = tokenizer(["a", "a river"], padding=True, return_tensors="pt")
    assert batch["attention_mask"][0, 0] == 1
    assert batch["attention_mask"][0, -1] == 0


@pytest.mark.parametrize("special", ["eos_token", "sep_token", "unk_token"])
def test_a_missing_padding_token_is_set(tmp_path, special, caplog):
    folder = Path(tiny.checkpoint(tmp_path))
    content = json.loads((folder / "tokenizer_config.json").read_text())
    others = dict.fromkeys(name for name in content if name.endswith("_token"))
    change(folder, **{**others, special: "[SEP]"})
    with caplog.at_level("INFO"):
        tokenizer = load_tokenizer(str(folder))
    assert tokenizer.pad_token == "[SEP]"
    assert sum("pad_token" in record.message for record in caplog.records) == 1
    assert tokenizer(["a", "a river"], padding=True)["input_ids"]


def test_a_tokenizer_without_any_token_to_pad_with_is_refused(tmp_path):
    folder = Path(tiny.checkpoint(tmp_path))
    content = json.loads((folder / "tokenizer_config.json").read_text())
    change(folder, **dict.fromkeys(name for name in content if name.endswith("_token")))
    with pytest.raises(InputError, match="pad_token"):
        load_tokenizer(str(folder))


@pytest.fixture(params=["Bert", "ModernBert"])
def both_sides(request, tmp_path) -> list[str]:
    """The same model twice, with absolute or with rotary positions; one's tokenizer pads and truncates on the left."""
    folders = []
    for side in ("right", "left"):
        folder = tmp_path / side
        tiny.model(request.param).save_pretrained(folder)
        tiny.pair_tokenizer().save_pretrained(folder)
        folders.append(change(folder, padding_side=side, truncation_side=side))
    return folders


def same_results(folders: list[Path]) -> None:
    measured = [json.loads((folder / "all_results.json").read_text()) for folder in folders]
    for name, value in measured[0].items():
        if "loss" in name or "accuracy" in name or "f1" in name or "exact" in name:
            assert measured[1][name] == value, name


@pytest.mark.parametrize("task", ["ner", "qa", "pos"])
def test_tasks_read_the_same_positions_on_both_sides(fine_tune, both_sides, task):
    outputs = [
        fine_tune(
            task,
            "--model",
            model,
            "--do_train",
            "--do_eval",
            "--eval_languages",
            "en",
            "hi",
            "--max_steps",
            3,
            output=f"out-{number}",
        )
        for number, model in enumerate(both_sides)
    ]
    same_results(outputs)
    for one in (outputs[0] / "predictions").iterdir():
        assert one.read_text() == (outputs[1] / "predictions" / one.name).read_text()


def test_an_adjustment_reads_the_same_positions_on_both_sides(run, tmp_path, both_sides):
    outputs = [tmp_path / f"out-{number}" for number in range(2)]
    for model, output in zip(both_sides, outputs):
        run(run_align.main, "--model", model, "--language", "hi", "--parallel_dataset", DATA / "parallel", "--aligner", "encoder",
            "--do_train", "--do_eval", "--validation_split_percentage", 30, "--output_dir", output, "--max_steps", 2, *QUICK)  # fmt: skip
    same_results(outputs)
    weights = [load_encoder(str(output)).state_dict() for output in outputs]
    assert all(torch.equal(weights[1][name], weight) for name, weight in weights[0].items() if "pooler" not in name)
