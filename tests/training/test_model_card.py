"""Cards and records of models: what was done, the chain of models, results as metadata; nothing private in them."""

import json
import os
import re
from pathlib import Path

import markdown
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
from utils.core.records import ALIGNMENT
from utils.models.adapters import LoraArguments, save_adapter, with_lora
from utils.models.encoders import load_encoder, load_task_model
from utils.models.lineage import ancestors, original_model
from utils.training.model_card import model_card
from utils.training.report import plot_losses
from utils.training.sharing import check_push, push


BASE = "google-bert/bert-base-multilingual-cased"


def record_of(task="text-classification", **changes) -> dict:
    arguments = {
        "train_language": "en", "eval_languages": ["en", "hi"], "languages": ["hi"], "dataset_name": "facebook/xnli",
        "validation_split": "validation", "test_split": "test", "learning_rate": 5e-5, "alignment_weight": 0.01,
        "parallel_dataset": "Helsinki-NLP/opus-100", "alignment_objective": "mse",
    }  # fmt: skip
    of_task = {
        "title": "Natural language inference", "metrics": ["accuracy"], "auto_class": "AutoModelForSequenceClassification",
        "hyperparameters": {"learning_rate": 5e-5, "alignment_weight": 0.01, "languages": ["hi", "ru"]}, "seed": 3,
    }  # fmt: skip
    of_adjustment = {
        "metrics": ["word_retrieval_accuracy"],
        "auto_class": "AutoModel",
        "hyperparameters": {},
        "seed": 3,
    }
    return {
        "task": task, "regime": "continual", "base_model": BASE, "base_model_revision": None, "arguments": arguments,
        "train_data": {"examples": 1000}, "eval_data": {"en": {}, "hi": {}}, "predict_data": {}, "zero_shot": ["hi"],
        "versions": {"torch": "2.13.0", "transformers": "5.23.0", "evaluate": "0.4.6"},
        **(of_adjustment if task == ALIGNMENT else of_task), **changes,
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


def rows_of(text):
    """The lines of tables, without the padding of their cells."""
    return [" ".join(line.split()) for line in text.splitlines() if line.startswith("|")]


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
    assert "fine-tuned for natural language inference on 1,000 examples in en" in text
    assert "*continual learning*" in text
    assert "evaluated in hi without any training data" in text
    rows = rows_of(text)
    assert "| validation | hi | accuracy | 0.65 |" in rows
    assert "| alignment_weight | 0.01 |" in rows
    assert "| languages | hi, ru |" in rows
    assert "| seed | 3 |" in rows
    assert text.lstrip().startswith("# nli-hi\n")
    assert "efimov2023impact" in text
    assert "cao2020multilingual" in text
    assert 'AutoModelForSequenceClassification.from_pretrained("somebody/nli-hi")' in text


def test_a_single_language_is_named():
    record = record_of(ALIGNMENT, train_data={"sw": {"pairs": 280}}, regime=None)
    record["arguments"]["languages"] = ["sw"]
    text = card_of(record).text
    assert text.count(" to sw.") == 2
    assert "these languages" not in text


def test_few_shot_languages_are_not_called_zero_shot():
    record = record_of()
    record["arguments"]["few_shot"] = ["hi=100", "ru=50"]
    text = card_of({**record, "zero_shot": []}).text
    assert "on 1,000 examples in en, among them 100 in hi and 50 in ru" in text
    assert "without any training data" not in text


def test_the_example_that_the_readme_shows():
    """The card of a quickstart run, as produced: valid, and of the same make as the cards of today."""
    example = ModelCard.load(DATA.parent / "docs" / "example_card.md")
    again = ModelCardData(**example.data.to_dict(), ignore_metadata_errors=False)
    assert len(again.eval_results) == 10
    assert {result.metric_type for result in again.eval_results} == {"word_retrieval_accuracy"}
    assert again.language == ["en", "es", "hi", "hi-Latn", "ru", "vi"]
    record = record_of(ALIGNMENT, train_data={"hi": {"pairs": 10}}, regime=None)
    headings = re.findall(r"^## .*", model_card("contrastive", record, {}, "."), re.MULTILINE)
    assert re.findall(r"^## .*", example.text, re.MULTILINE) == headings
    assert "(losses.png)" in example.text
    of_folders = model_card("./contrastive", {**record, "base_model": "./sample-model"}, {}, ".")
    assert re.findall(r"^\d\. .*", example.text, re.MULTILINE) == re.findall(r"^\d\. .*", of_folders, re.MULTILINE)
    assert "| Parallel sentences for cross-lingual adjustment (a local folder) | cc0-1.0 |" in rows_of(example.text)


def test_every_metric_of_the_record_is_shown():
    record = record_of(metrics=["accuracy", "novelty"])
    card = card_of(record, {**RESULTS, "eval_hi_novelty": 0.123})
    assert "| validation | hi | novelty | 0.123 |" in rows_of(card.text)
    assert {result.metric_type for result in card.data.eval_results} == {"accuracy", "novelty"}


def test_the_card_says_what_the_objective_does():
    for name, objective in (("mse", "mean squared error"), ("contrastive", "in-batch negatives")):
        record = record_of(ALIGNMENT, train_data={"hi": {"pairs": 1234}}, regime=None)
        record["arguments"]["alignment_objective"] = name
        text = model_card("adjusted", record, {}, ".")
        assert objective in text
        assert "1,234 sentence pairs, the vectors of words and" in text
        assert "Nothing was measured" in text


@pytest.mark.parametrize("unit", ["word", "sentence", "both"])
@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("task", [ALIGNMENT, "text-classification"])
def test_the_card_says_nothing_of_a_loss_of_weight_0(unit, aligned, kept, task):
    data = {"hi": {"pairs": 10}} if task == ALIGNMENT else {"examples": 10}
    if task == ALIGNMENT and not (aligned or kept):
        return  # (which is refused)
    record = record_of(task, train_data=data)
    record["arguments"] |= {"alignment_weight": aligned, "regularization_weight": kept, "alignment_unit": unit}
    first = model_card("adjusted", record, {}, ".").partition("## Use")[0].partition("# adjusted")[2]
    assert ("pulled together" in first) == bool(aligned and task == ALIGNMENT)
    assert ("alignment loss" in first) == bool(aligned and task != ALIGNMENT)
    assert ("transfer better" in first) == bool(aligned and task == ALIGNMENT)
    assert ("*cross-lingual adjustment*" in first) == bool(aligned and task == ALIGNMENT)
    assert ("close to those of the original encoder" in first) == bool(kept and (task == ALIGNMENT or not aligned))
    assert "  " not in first
    assert " ." not in first


@pytest.mark.parametrize(
    ("task", "given", "prefix", "found"),
    [
        (ALIGNMENT, {"validation_file": ["x.tsv"]}, "eval", ("local data", None)),
        (ALIGNMENT, {"validation_split": None}, "eval", ("Helsinki-NLP/opus-100", None)),
        (ALIGNMENT, {"parallel_dataset": None, "parallel_file": ["x.tsv"]}, "eval", ("local data", None)),
        ("token-classification", {"validation_file": ["hi=x"]}, "eval", ("local data", None)),
        ("token-classification", {"validation_file": ["hi=x"]}, "predict", ("facebook/xnli", "test")),
        ("token-classification", {"test_file": ["hi=x"]}, "predict", ("local data", None)),
        ("token-classification", {"test_file": ["hi=x"]}, "eval", ("facebook/xnli", "validation")),
        ("token-classification", {"eval_dataset_name": "a/b"}, "eval", ("a/b", "validation")),
        ("token-classification", {"eval_dataset_name": "./b"}, "eval", ("local data", "validation")),
        ("token-classification", {"dataset_name": None, "train_file": "x"}, "eval", ("local data", None)),
    ],
    ids=str,
)
def test_scores_are_said_of_the_data_that_they_are_of(task, given, prefix, found):
    """Local files are not the data set that was trained on, nor its parallel sentences."""
    record = record_of(task, **{"train_data": None, "eval_data": {}, f"{prefix}_data": {"hi": {}}})
    record["arguments"] |= given
    name = f"{prefix}_hi-en_word_retrieval_accuracy" if task == ALIGNMENT else f"{prefix}_hi_accuracy"
    (result,) = card_of(record, {name: 0.5}).data.eval_results
    assert (result.dataset_type, result.dataset_split) == found
    assert result.dataset_name.startswith(f"{found[0]} (hi")


def test_of_local_models_and_data_the_place_is_not_said(tmp_path):
    """The chain names the folder, but not where it is, and goes on to the model behind it that others can load."""
    folder = tmp_path / "adjusted"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"base_model": BASE}))
    record = record_of(base_model=str(folder))
    record["arguments"]["dataset_name"] = str(tmp_path)
    card = card_of(record)
    assert card.data.base_model == BASE
    assert "`adjusted` (a local folder, not published)" in card.text
    assert str(tmp_path) not in str(card)


def test_figures_are_shown(tmp_path):
    (tmp_path / "accuracy_by_layer.png").write_bytes(b"")
    assert "![accuracy by layer](accuracy_by_layer.png)" in card_of(record_of(), folder=tmp_path).text


def test_data_in_a_folder_are_called_what_their_card_calls_them():
    record = record_of()
    record["arguments"]["parallel_dataset"] = str(DATA / "parallel")
    text = str(card_of(record))
    assert "| Parallel sentences for cross-lingual adjustment (a local folder) | cc0-1.0 |" in rows_of(text)
    assert str(DATA) not in text


@pytest.mark.usefixtures("figures")
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
    lora = LoraArguments(use_lora=True, lora_rank=2, lora_alpha=4)
    adjusted = with_lora(load_encoder("google/base"), "google/base", lora)
    tuned, _ = load_task_model(AutoModelForSequenceClassification, "google/base", ["yes", "no", "perhaps"])
    tuned = with_lora(tuned, "me/adjusted", lora)
    for number, (model, folder) in enumerate(((adjusted, "me/adjusted"), (tuned, "me/nli"))):
        torch.manual_seed(number)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter) if parameter.requires_grad else 0
        save_adapter(model, folder)
        tiny.tokenizer().save_pretrained(folder)
    monkeypatch.setattr(utils.training.model_card, "_is_folder", lambda name: False)
    record = record_of(base_model="me/adjusted")
    record["arguments"] |= {"use_lora": True, "merge_adapter": False}
    card = ModelCard(model_card("me/nli", record, RESULTS, "."))
    assert card.data.to_dict()["base_model_relation"] == "adapter"
    assert card.data.library_name == "peft"
    found = {}
    exec(card.text.partition("```python")[2].partition("```")[0], found)  # noqa: S102
    expected, _ = load_task_model(AutoModelForSequenceClassification, "me/nli")
    inputs = found["tokenizer"]("Anna's sister", return_tensors="pt")
    torch.testing.assert_close(found["model"].eval()(**inputs).logits, expected.eval()(**inputs).logits)
    assert found["model"].config.id2label == {0: "yes", 1: "no", 2: "perhaps"}


def test_the_card_of_an_adjustment_by_adapter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.checkpoint(Path("google/base"))
    save_adapter(with_lora(load_encoder("google/base"), "google/base", LoraArguments(use_lora=True)), "me/adjusted")
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


def test_every_training_leaves_a_card_and_no_token(run, tmp_path):
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
        record = json.loads((tmp_path / name / "run.json").read_text(encoding="utf-8"))
        assert record["hyperparameters"]["max_steps"] == 1
        rows = rows_of(card.text)
        for setting in ("max_steps", "lr_scheduler_type", "max_seq_length", "train_sampling_strategy"):
            value = record["hyperparameters"][setting]
            assert any(row.startswith(f"| {setting} | ") for row in rows) or value is None
        # Only what had an effect: no adapter was trained, and the task without the alignment loss.
        assert ("alignment_weight" in record["hyperparameters"]) == (name == "adjusted")
        assert "lora_rank" not in record["hyperparameters"]
    for path in tmp_path.rglob("*.*"):
        assert path.is_dir() or b"hf_secret" not in path.read_bytes(), path
    assert os.environ.get("HF_TOKEN") != "hf_secret"


def test_the_token_is_not_in_the_pickle_of_the_arguments(tmp_path):
    training = run_nli.NliTrainingArguments(output_dir=str(tmp_path), hub_token="hf_secret", use_cpu=True)  # noqa: S106
    torch.save(training, tmp_path / "training_args.bin")
    assert b"hf_secret" not in (tmp_path / "training_args.bin").read_bytes()
    again = torch.load(tmp_path / "training_args.bin", weights_only=False)
    assert (again.learning_rate, again.hub_token, training.hub_token) == (5e-5, None, "hf_secret")


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
        match=rf"quota exceeded.*hf upload me/mine {tmp_path} \. --exclude 'checkpoint-\*'",
    ):
        push(tmp_path, "me/mine")


def test_the_report_which_quotes_the_data_is_not_pushed(hub, tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(utils.training.sharing.HfApi, "upload_folder", lambda self, **options: given.update(options))
    push(tmp_path, "me/mine")
    assert {"report.html", "checkpoint-*", "_*"} <= set(given["ignore_patterns"])
    assert {"report.html", "training_args.bin"} <= set(given["delete_patterns"])


def test_what_would_prevent_the_push_is_known_before_the_work(hub, tmp_path):
    training = run_nli.NliTrainingArguments(output_dir=str(tmp_path / "mine"), push_to_hub=True, use_cpu=True)
    with pytest.raises(InputError, match="finished model could not be pushed to mine .*quota exceeded.*hf auth login"):
        check_push(training)
    training.push_to_hub = False
    check_push(training)
    assert issubclass(HfHubHTTPError, OSError)


@pytest.mark.parametrize(
    "name",
    ["<script>alert(1)</script>", "a\n---\nlicense: x", "a|b", "`<img src=x>`", 'x")\nimport os\n("', "x" * 300],
)
def test_names_break_no_card(name):
    """Names of models and data sets, in the text and in the metadata, which are YAML."""
    record = record_of(hyperparameters={"learning_rate": 5e-5, "name": name}) | {"base_model": name}
    record["arguments"] |= {"dataset_name": name, "parallel_dataset": name}
    card = ModelCard(model_card(name, record, RESULTS, "."))
    usual = ModelCard(model_card("x", record_of(hyperparameters={"learning_rate": 5e-5, "name": "x"}), RESULTS, "."))
    assert card.data.license is None
    pages = [markdown.markdown(one.text, extensions=["tables", "fenced_code"]) for one in (card, usual)]
    tags = [set(re.findall(r"<(\w+)", page)) for page in pages]
    assert tags[0] <= tags[1]
    assert card.text.count("\n## ") == usual.text.count("\n## ")
    assert not re.search("^import os", card.text, re.MULTILINE)


def test_several_languages_have_a_table():
    data = {"hi": {"pairs": 1000, "links": 9000}, "ru": {"pairs": 500, "links": 4000}}
    losses = {"train_alignment_loss_hi": 0.25, "train_alignment_loss_ru": 0.125, "eval_alignment_loss_hi": 0.5}
    results = {**losses, "eval_hi-en_word_retrieval_accuracy": 0.75}
    rows = rows_of(model_card("adjusted", record_of(ALIGNMENT, train_data=data), results, "."))
    assert "| hi | 1,000 | 9,000 | 0.25 | 0.5 | 0.75 |" in rows
    assert "| ru | 500 | 4,000 | 0.125 | – | – |" in rows
    one = model_card("adjusted", record_of(ALIGNMENT, train_data={"hi": data["hi"]}), results, ".")
    assert not [row for row in rows_of(one) if row.startswith("| hi | 1,000")]
