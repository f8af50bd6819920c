"""run_distances.py as a user types it, on tiny encoders."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModel

import run_align
import run_distances
from helpers import tiny
from helpers.figures import inked
from helpers.paths import PROJECT
from helpers.processes import run_process
from helpers.scripts import of_another_language
from utils.core.errors import run_script
from utils.parallel.aligners.pharaoh import read_header


@pytest.fixture
def measure(run, tmp_path, model, bitext):
    """Run the script with what every run needs; later arguments win."""

    def run_it(*arguments, output="out"):
        given = [str(a) for a in arguments]
        data = [] if "--parallel_dataset" in given or "--parallel_file" in given else ["--parallel_file", bitext]
        languages = [] if {"--language", "--languages"} & set(given) else ["--language", "hi"]
        names = [] if {"--model", "--models"} & set(given) else ["--model", model]
        run(run_distances.main, *names, *languages, *data, "--output_dir", tmp_path / output, "--use_cpu", *given)
        return tmp_path / output

    return run_it


def read(folder: Path, name: str = "all_results.json") -> dict:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def rows(folder: Path) -> Dataset:
    return Dataset.from_file(str(folder / "distances.arrow"))


# --- What it measures --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("figures")
def test_a_model_under_two_names_shows_exactly_no_difference(measure, model, tmp_path, capsys):
    other = shutil.copytree(model, tmp_path / "again")
    out = measure("--models", model, other, "--layers", "all")
    results = read(out)
    of_model = [
        {name.removeprefix(f"{label}/"): value for name, value in results.items() if name.startswith(f"{label}/")}
        for label in ("encoder", "again")
    ]
    assert of_model[0] == of_model[1]
    assert len(of_model[0]) == 3 * 2 * (4 * 3 + 4)
    found = rows(out).to_pandas()
    one, same = (
        found[found.model == label].drop(columns="model").reset_index(drop=True) for label in ("encoder", "again")
    )
    assert one.equals(same)
    assert len(one) == 3 * 2 * results["hi_links"]
    for name in ("distances_hi", "layers_hi"):
        assert (out / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert inked(out / f"{name}.png") > 0.02
    table = capsys.readouterr().out.rpartition("\n\nIn ")[0].splitlines()
    assert [line.split()[:4] for line in table[-4:]] == [
        [label, "hi", "2", distance] for label in ("encoder", "again") for distance in ("l2", "cosine")
    ]
    assert table[-4].split()[1:] == table[-2].split()[1:]


def test_numbers_are_those_of_the_distances_link_by_link(measure, tmp_path):
    out = measure("--distance", "cosine", "--layers", "1")
    results, found = read(out), rows(out).to_pandas()
    assert set(found["distance"]) == {"cosine"}
    assert len(found) == results["hi_links"] > 50
    assert results["hi_layer1_cosine_median_related"] == pytest.approx(found.related.median())
    assert results["hi_layer1_cosine_median_difference"] == pytest.approx((found.unrelated - found.related).median())
    nearer = (found.related < found.unrelated).mean() + (found.related == found.unrelated).mean() / 2
    assert results["hi_layer1_cosine_share_nearer"] == pytest.approx(nearer)
    low, high = (results[f"hi_layer1_cosine_share_nearer_{end}"] for end in ("low", "high"))
    assert low <= nearer <= high
    assert (found.related_word.str.lower() != found.unrelated_word.str.lower()).all()
    assert found.same_pair.mean() == pytest.approx(0.5, abs=0.15)
    assert not (out / "layers_hi.png").exists()
    record = read(out, "run.json")
    assert record["arguments"]["distances"] == ["cosine"]
    assert (record["seed"], record["eval_data"]["hi"]["pairs"]) == (42, results["hi_pairs"])
    assert record["base_model"] == record["reference_model"] == str(tmp_path / "encoder")


def test_all_models_are_compared_on_the_same_words(measure, model, tmp_path):
    """Whatever their tokenizers, depths and heads."""
    deeper = tiny.checkpoint(tmp_path / "deeper", "XLMRoberta", "ForMaskedLM", "unigram", num_hidden_layers=3)
    tagger = tiny.checkpoint(tmp_path / "tagger", head="ForTokenClassification", num_labels=5)
    out = measure("--models", model, deeper, tagger, "--max_links", 40)
    found = rows(out).to_pandas()
    assert set(zip(found.model, found.layer)) == {("encoder", 2), ("deeper", 3), ("tagger", 2)}
    words = ["link", "pair", "source_word", "related_word", "unrelated_word", "same_pair"]
    of_model = [
        found[(found.model == m) & (found["distance"] == "l2")][words].reset_index(drop=True)
        for m in ("encoder", "deeper", "tagger")
    ]
    assert of_model[0].equals(of_model[1])
    assert of_model[0].equals(of_model[2])
    assert len(of_model[0]) == read(out)["hi_links"] == 40 - read(out)["hi_links_without_vector"]
    alone = rows(measure("--models", model, "--max_links", 40, output="alone")).to_pandas()
    assert set(zip(of_model[0].pair, of_model[0].source_word, of_model[0].unrelated_word)) <= set(
        zip(alone.pair, alone.source_word, alone.unrelated_word)
    )


def test_an_adapter_is_measured_on_top_of_its_model(run, measure, model, bitext, tmp_path):
    adapter = tmp_path / "adapter"
    run(
        run_align.main, "--model", model, "--language", "hi", "--parallel_file", bitext, "--output_dir", adapter,
        "--use_lora", "--learning_rate", 1e-2, "--num_train_epochs", 5, "--per_device_train_batch_size", 8, "--use_cpu",
        "--disable_tqdm", "true",
    )  # fmt: skip
    out = measure("--models", adapter, model)
    results = read(out)
    name = "hi_layer2_l2_median_related"
    assert results[f"adapter/{name}"] < results[f"encoder/{name}"]
    assert read(out, "run.json")["reference_model"] == model


def test_seed_and_batch_size(measure):
    one, again, other = (
        rows(measure("--max_links", 30, *more, output=f"run{k}")).to_pandas()
        for k, more in enumerate(((), ("--per_device_eval_batch_size", 2), ("--seed", 7)))
    )
    words = ["pair", "source_word", "related_word", "unrelated_word"]
    assert one[words].equals(again[words])
    np.testing.assert_allclose(one.related, again.related, rtol=1e-4, atol=1e-6)
    assert not one[words].equals(other[words])


def test_the_original_links_the_words(measure, model, tmp_path, caplog):
    """By the records that lead from the first model to it, so that adjusted models do not choose their own links."""
    adjusted = shutil.copytree(tiny.checkpoint(tmp_path / "other", seed=3), tmp_path / "adjusted")
    (adjusted / "run.json").write_text(json.dumps({"base_model": model}))
    links = tmp_path / "kept.links"
    out = measure("--models", adjusted, "--write_links", links)
    assert read(out, "run.json")["reference_model"] == model
    named = measure("--models", adjusted, "--reference_model", model, output="named")
    assert read(named) == read(out)
    assert read_header(links)["pairs"] == "24"
    from_file = measure("--models", adjusted, "--links_file", links, output="from_file")
    assert read(from_file, "run.json")["reference_model"] is None
    assert read(from_file) == read(out)
    own = measure("--models", adjusted, "--reference_model", adjusted, output="own")
    assert read(own)["hi_links"] != read(out)["hi_links"]


def test_the_pairs_that_adjustment_holds_out(measure):
    everything, held_out = read(measure()), read(measure("--validation_split_percentage", 40, output="part"))
    assert 0 < held_out["hi_pairs"] < everything["hi_pairs"]
    record = read(measure("--validation_split_percentage", 40, "--max_eval_pairs", 3, output="few"), "run.json")
    assert record["eval_data"]["hi"]["pairs"] == 3


def test_several_languages(measure, bitext, tmp_path):
    russian = of_another_language(bitext, tmp_path / "ru.tsv")
    out = measure("--languages", "hi", "ru", "--parallel_file", f"hi={bitext}", f"ru={russian}")
    results = read(out)
    hindi = {name: value for name, value in results.items() if "ru" not in name}
    renamed = {re.sub(r"\bru(?=[-_])|(?<=en-)ru", "hi", name) for name in results if "ru" in name}
    assert renamed == hindi.keys() - {"word_pooling"}
    assert {path.name for path in out.glob("*.png")} == {"distances_hi.png", "distances_ru.png"}
    assert read(measure("--language", "hi", "--parallel_file", bitext, output="alone")) == hindi


@pytest.mark.parametrize("pooling", ["start", "token"])
def test_word_pooling(measure, pooling):
    out = measure("--word_pooling", pooling, "--bf16")
    assert read(out)["word_pooling"] == pooling


def test_two_processes_give_the_results_of_one(measure, model, bitext, tmp_path):
    alone = measure("--per_device_eval_batch_size", 5, "--layers", "all")
    words = [PROJECT / "run_distances.py", "--model", model, "--language", "hi", "--parallel_file", bitext, "--layers", "all",
             "--per_device_eval_batch_size", "5", "--output_dir", tmp_path / "two", "--use_cpu"]  # fmt: skip
    printed = run_process(words, tmp_path / "log", {"HF_DATASETS_CACHE": str(tmp_path / "cache")}, n_processes=2)
    assert printed.count("cosine") == 1
    assert read(tmp_path / "two") == read(alone)


# --- What it refuses ---------------------------------------------------------------------------------------------


def message_of(measure, *arguments, output="refused") -> str:
    with pytest.raises(SystemExit) as end:
        run_script(lambda: measure(*arguments, output=output))
    message = str(end.value.code)
    assert message.startswith("error: ")
    assert "\n" not in message
    return message


BAD_ARGUMENTS = {
    "--layers 3": "--layers 3",
    "--max_links 0": "--max_links 0",
    "--max_eval_pairs 0": "--max_train_pairs 0",
    "--max_seq_length 5000": "--max_seq_length 5000",
    "--max_seq_length 3": "A link of hi is missing",
    "--models a/b": "There is no model a/b",
    "--parallel_file nowhere.tsv": "There is no file nowhere.tsv",
    "--links_file nowhere.links": "nowhere.links",
    "--aligner file": "--aligner file .*--links_file",
    "--reverse_links": "--reverse_links .*--links_file",
    "--validation_split_percentage 100": "--validation_split_percentage 100",
    "--validation_split_percentage 0.0001": "None of the 24 pairs of hi is held out",
    "--validation_split_percentage 0.0001 --aligner statistical": "None of the 24 pairs of hi is held out",
    "--aligner dictionary": "--dictionary_file",
    "--reference_model x/y": "There is no model x/y",
    "--languages en": "not en",
    "--max_words 1": "None of the 24 pairs of hi can be used",
}


@pytest.mark.parametrize("arguments", BAD_ARGUMENTS)
def test_bad_arguments(measure, tmp_path, arguments):
    assert re.search(BAD_ARGUMENTS[arguments], message_of(measure, *arguments.split()))
    assert not (tmp_path / "refused").exists()


def test_what_cannot_be_compared(measure, model, tmp_path):
    assert "is named twice" in message_of(measure, "--models", model, model)
    other = tiny.checkpoint(tmp_path / "other", kind="unigram")
    assert "have different vocabularies" in message_of(measure, "--models", model, other, "--word_pooling", "token")
    message = message_of(measure, "--reference_model", model, "--aligner", "statistical")
    assert "--reference_model has no effect" in message
    orphan = Path(shutil.copytree(model, tmp_path / "orphan"))
    (orphan / "run.json").write_text(json.dumps({"base_model": "no/model"}))
    assert "was made from no/model, which cannot be loaded now" in message_of(measure, "--models", orphan)


def test_a_model_that_diverged(measure, model, tmp_path):
    diverged = AutoModel.from_pretrained(model)
    with torch.no_grad():
        diverged.embeddings.LayerNorm.bias.fill_(
            3e38
        )  # (weights that are not finite are refused when they are loaded)
    diverged.save_pretrained(tmp_path / "diverged")
    tiny.tokenizer().save_pretrained(tmp_path / "diverged")
    message = message_of(measure, "--models", model, tmp_path / "diverged")
    assert "diverged gives vectors with nan or inf" in message
    assert not (tmp_path / "refused").exists()


def test_output_folder_that_is_not_empty(measure):
    out = measure(output="full")
    before = (out / "all_results.json").read_text()
    assert "is not empty" in message_of(measure, output="full")
    assert (out / "all_results.json").read_text() == before
    measure("--overwrite_output_dir", "--seed", 3, output="full")
    assert read(out, "run.json")["seed"] == 3


def test_help_teaches(run, capsys):
    with pytest.raises(SystemExit):
        run(run_distances.main, "--help")
    text = capsys.readouterr().out
    for name in ("python run_distances.py --models", "--distance", "--reference_model", "--max_eval_pairs", "l2"):
        assert name in text
