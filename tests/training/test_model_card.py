"""Cards and records of models: what was done, the chain of models, results as metadata; nothing private in them."""

import json
import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.errors import HfHubHTTPError
from transformers import AutoModelForSequenceClassification

import run_align
import run_nli
import utils.training.model_card
import utils.training.sharing
from helpers import tiny
from helpers.paths import DATA
from utils.core.errors import InputError
from utils.models.adapters import save_adapter, with_lora
from utils.models.encoders import load_encoder, load_task_model
from utils.models.lineage import ancestors, original_model
from utils.training.figures import plot_losses
from utils.training.model_card import ALIGNMENT, model_card
from utils.training.sharing import check_push, push


BASE = "google-bert/bert-base-multilingual-cased"


def record_of(task="text-classification", **changes) -> dict:
    arguments = {
        "train_language": "en", "eval_languages": ["en", "hi"], "languages": ["hi"], "dataset_name": "facebook/xnli",
        "validation_split": "validation", "test_split": "test", "learning_rate": 5e-5, "alignment_weight": 0.01,
        "parallel_dataset": "Helsinki-NLP/opus-100", "alignment_objective": "mse",
    }  # fmt: skip
    return {
        "task": task, "regime": "continual", "base_model": BASE, "base_model_revision": None, "arguments": arguments,
        "train_data": {"examples": 1000}, "eval_data": {"en": {}, "hi": {}}, "predict_data": {},
        "versions": {"torch": "2.13.0", "transformers": "5.23.0", "evaluate": "0.4.6"}, **changes,
    }  # fmt: skip


RESULTS = {
    "eval_en_accuracy": 0.8,
    "eval_hi_accuracy": 0.65,
    "eval_hi_runtime": 3.0,
    "eval_zero_shot_accuracy": 0.65,
    "train_loss": 0.5,
}


def card_of(record, results=None, folder="."):
    """The card as the Hub's own client reads it, metadata and all."""
    return ModelCard(model_card("somebody/nli-hi", record, results or RESULTS, folder))


def test_the_metadata_are_read_back():
    data = card_of(record_of()).data
    assert data.base_model == BASE
    assert data.to_dict()["base_model_relation"] == "finetune"
    assert data.language == ["en", "hi"]
    assert data.pipeline_tag == "text-classification"
    assert data.datasets == ["Helsinki-NLP/opus-100", "facebook/xnli"]
    assert "continual-learning" in data.tags
    results = {(result.dataset_config, result.metric_type): result for result in data.eval_results}
    assert set(results) == {("en", "accuracy"), ("hi", "accuracy")}
    hindi = results["hi", "accuracy"]
    assert (hindi.metric_value, hindi.dataset_type, hindi.dataset_split) == (0.65, "facebook/xnli", "validation")


def test_a_reader_learns_what_was_done():
    text = card_of(record_of()).text
    assert "fine-tuned for text-classification on 1,000 examples in en" in text
    assert "*continual learning*" in text
    assert "Measured in hi without any training data there" in text
    assert "| validation | hi | accuracy | 0.65 |" in text
    assert "| alignment_weight | 0.01 |" in text
    assert "efimov2023impact" in text
    assert "cao2020multilingual" in text
    assert 'AutoModelForSequenceClassification.from_pretrained("somebody/nli-hi")' in text


def test_the_example_that_the_readme_shows():
    """The card of a quickstart run, as produced: valid, and of the same make as the cards of today."""
    example = ModelCard.load(DATA.parent / "docs" / "example_card.md")
    again = ModelCardData(**example.data.to_dict(), ignore_metadata_errors=False)
    assert len(again.eval_results) == 8
    assert {result.metric_type for result in again.eval_results} == {"word_retrieval_accuracy"}
    assert again.language == ["en", "es", "hi", "ru", "vi"]
    record = record_of(ALIGNMENT, train_data={"hi": {"pairs": 10}}, regime=None)
    headings = re.findall(r"^## .*", model_card("contrastive", record, {}, "."), re.MULTILINE)
    assert re.findall(r"^## .*", example.text, re.MULTILINE) == headings
    assert "(losses.png)" in example.text
    assert "| Parallel sentences for cross-lingual adjustment (a local folder) | cc0-1.0 |" in example.text


def test_a_plain_run_has_no_settings_of_the_alignment():
    card = card_of(record_of(regime="plain"))
    assert "alignment_weight" not in card.text
    assert "continual-learning" not in card.data.tags


def test_local_models_and_data_are_not_named(tmp_path):
    """The chain says that there was a local folder, and goes on to the model behind it that has a name."""
    folder = tmp_path / "secret-project"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"base_model": BASE}))
    record = record_of(base_model=str(folder))
    record["arguments"]["dataset_name"] = str(tmp_path)
    card = card_of(record)
    assert card.data.base_model == BASE
    assert "secret-project" not in str(card)
    assert "a model in a local folder (not published)" in card.text
    assert str(tmp_path) not in str(card)


def test_figures_are_shown(tmp_path):
    (tmp_path / "accuracy_by_layer.png").write_bytes(b"")
    assert "![accuracy by layer](accuracy_by_layer.png)" in card_of(record_of(), folder=tmp_path).text


def test_data_in_a_folder_are_called_what_their_card_calls_them():
    record = record_of()
    record["arguments"]["parallel_dataset"] = str(DATA / "parallel")
    text = str(card_of(record))
    assert "| Parallel sentences for cross-lingual adjustment (a local folder) | cc0-1.0 |" in text
    assert str(DATA) not in text


def test_losses_are_drawn(tmp_path):
    history = [{"loss": 1 / step, "alignment_loss": 0.5 / step, "eval_loss": 3.0, "step": step} for step in (1, 2, 3)]
    assert plot_losses(history, tmp_path / "losses.png")
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert not plot_losses(history[:1], tmp_path / "none.png")
    assert not plot_losses([{"train_loss": 1.0, "step": 1}, {"train_loss": 1.0, "step": 2}], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


# --- Adapters ---


def test_the_code_on_the_card_of_an_adapter_runs(tmp_path, monkeypatch):
    """An adjustment for Hindi, and on it an adapter for NLI: what a reader copies gives the model that was trained."""
    monkeypatch.chdir(tmp_path)  # names of the Hub are folders here
    tiny.checkpoint(Path("google/base"))
    options = {"rank": 2, "alpha": 4}
    adjusted = with_lora(load_encoder("google/base"), "google/base", **options)
    tuned, _ = load_task_model(AutoModelForSequenceClassification, "google/base", ["yes", "no", "perhaps"])
    tuned = with_lora(tuned, "me/adjusted", **options)
    for number, (model, folder) in enumerate(((adjusted, "me/adjusted"), (tuned, "me/nli"))):
        torch.manual_seed(number)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter) if parameter.requires_grad else 0
        save_adapter(model, folder)
        tiny.tokenizer().save_pretrained(folder)
    monkeypatch.setattr(utils.training.model_card, "_is_folder", lambda name: False)
    record = record_of(base_model="me/adjusted")
    record["arguments"] |= {"use_lora": True, "merge_adapter": False, "lora_rank": 2, "lora_alpha": 4.0}
    card = ModelCard(model_card("me/nli", record, RESULTS, "."))
    assert card.data.to_dict()["base_model_relation"] == "adapter"
    assert card.data.library_name == "peft"
    assert "| lora_rank | 2 |" in card.text
    found = {}
    exec(card.text.partition("```python")[2].partition("```")[0], found)  # noqa: S102
    expected, _ = load_task_model(AutoModelForSequenceClassification, "me/nli")
    inputs = found["tokenizer"]("Anna's sister", return_tensors="pt")
    torch.testing.assert_close(found["model"].eval()(**inputs).logits, expected.eval()(**inputs).logits)
    assert found["model"].config.id2label == {0: "yes", 1: "no", 2: "perhaps"}


def test_the_card_of_an_adjustment_by_adapter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.checkpoint(Path("google/base"))
    save_adapter(with_lora(load_encoder("google/base"), "google/base"), "me/adjusted")
    tiny.tokenizer().save_pretrained("me/adjusted")
    monkeypatch.setattr(utils.training.model_card, "_is_folder", lambda name: False)
    record = record_of(ALIGNMENT, base_model="google/base", train_data={"hi": {"pairs": 10}}, regime=None)
    record["arguments"] |= {"use_lora": True, "merge_adapter": False}
    text = model_card("me/adjusted", record, {}, ".")
    found = {}
    exec(text.partition("```python")[2].partition("```")[0], found)  # noqa: S102
    assert type(found["model"]).__name__ == "BertModel"
    record["arguments"]["merge_adapter"] = True
    assert ModelCard(model_card("me/adjusted", record, {}, ".")).data.to_dict()["base_model_relation"] == "finetune"


def test_the_chain_of_models(tmp_path):
    folders = [tmp_path / name for name in ("adjusted", "tuned", "again")]
    for before, folder in zip([BASE, *folders], folders):
        folder.mkdir()
        (folder / "run.json").write_text(
            json.dumps({"base_model": str(before), "base_model_revision": "abc" if before == BASE else None})
        )
    assert original_model(str(folders[-1])) == (BASE, "abc")
    assert ancestors(str(folders[-1])) == [str(folders[1]), str(folders[0]), BASE]
    assert original_model(BASE, "v2") == (BASE, "v2")
    (folders[0] / "run.json").write_text(json.dumps({"base_model": str(folders[-1])}))  # a circle comes to an end
    assert len(ancestors(str(folders[-1]))) == 2


def test_every_training_leaves_a_card_and_no_token(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "")  # (restored afterwards)
    folder = tmp_path / "encoder"
    tiny.model().save_pretrained(folder)
    tiny.pair_tokenizer().save_pretrained(folder)
    quick = (
        "--use_cpu",
        "--disable_tqdm",
        "true",
        "--max_steps",
        1,
        "--token",
        "hf_secret",
        "--hub_token",
        "hf_secret",
    )
    run(run_align.main, "--model", folder, "--language", "hi", "--parallel_dataset", DATA / "parallel", "--do_train", "--do_eval",
        "--validation_split_percentage", 20, "--output_dir", tmp_path / "adjusted", *quick)  # fmt: skip
    run(run_nli.main, "--model", tmp_path / "adjusted", "--dataset_name", DATA / "nli", "--do_train", "--do_eval",
        "--eval_languages", "en", "hi", "--output_dir", tmp_path / "tuned", *quick)  # fmt: skip
    for name, metric in (("adjusted", "word_retrieval_accuracy"), ("tuned", "accuracy")):
        card = ModelCard.load(tmp_path / name / "README.md")
        assert {result.metric_type for result in card.data.eval_results} == {metric}
    for path in tmp_path.glob("*/*.*"):
        assert b"hf_secret" not in path.read_bytes(), path


# --- Pushing ---


@pytest.fixture
def hub(monkeypatch):
    """A Hub that refuses everything."""

    def refuse(self, *args, **kwargs):
        raise OSError("quota exceeded")

    monkeypatch.setattr(utils.training.sharing.HfApi, "create_repo", refuse)
    monkeypatch.setattr(utils.training.sharing.HfApi, "upload_folder", refuse)


def test_a_push_that_fails_says_how_to_push_later(hub, tmp_path):
    with pytest.raises(
        InputError,
        match=rf"whole in {tmp_path}.*quota exceeded.*hf upload me/mine {tmp_path} \. --exclude 'checkpoint-\*'",
    ):
        push(tmp_path, "me/mine")


def test_what_would_prevent_the_push_is_known_before_the_work(hub, tmp_path):
    training = run_nli.NliTrainingArguments(output_dir=str(tmp_path / "mine"), push_to_hub=True, use_cpu=True)
    with pytest.raises(InputError, match="could not be pushed to mine in the end.*quota exceeded.*hf auth login"):
        check_push(training)
    training.push_to_hub = False
    check_push(training)
    assert issubclass(HfHubHTTPError, OSError)
