"""run_align.py as a user types it, on a tiny encoder."""

import gzip
import json
import random
import re
import shutil
import signal
import time
import zlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

import run_align
import run_xsr
from helpers import tiny
from helpers.checkpoints import load_report
from helpers.paths import PROJECT
from helpers.processes import ScriptProcess, run_process
from helpers.scripts import DIVISIONS, of_another_language
from utils.core.errors import InputError, run_script
from utils.models.adapters import adapter_config
from utils.models.encoders import layout_of, load_encoder
from utils.parallel.aligners.pharaoh import read_header
from utils.training.whole_checkpoints import is_whole


QUICK = ("--use_cpu", "--disable_tqdm", "true", "--per_device_train_batch_size", "8", "--logging_steps", "1")


@pytest.fixture
def align(run, tmp_path, model, bitext):
    """Run the script with what every run needs; later arguments win."""

    def run_it(*arguments, output="out"):
        given = [str(a) for a in arguments]
        data = [] if "--parallel_dataset" in given or "--parallel_file" in given else ["--parallel_file", bitext]
        languages = [] if {"--language", "--languages"} & set(given) else ["--language", "hi"]
        names = [] if "--model" in given else ["--model", model]
        run(run_align.main, *names, *languages, *data, "--output_dir", tmp_path / output, *QUICK, *given)
        return tmp_path / output

    return run_it


def results(folder: Path) -> dict:
    return json.loads((folder / "all_results.json").read_text())


@pytest.mark.usefixtures("figures")
def test_the_whole_story(align, model, caplog):
    out = align("--do_train", "--do_eval", "--validation_split_percentage", 25, "--eval_layers", 0, 2)
    metrics = results(out)
    for name in ("alignment_loss", "regularization_loss", "loss", "word_retrieval_accuracy", "links",
                 "hi-en_word_retrieval_accuracy", "en-hi_layer0_word_retrieval_accuracy"):  # fmt: skip
        assert f"eval_{name}" in metrics
    assert metrics["train_loss"] > 0
    # Nothing of the original is lost, and the encoder has moved.
    before, after = load_file(f"{model}/model.safetensors"), load_file(out / "model.safetensors")
    assert set(before) == set(after)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith("bert.") for name in moved)
    AutoModelForMaskedLM.from_pretrained(out)
    assert load_report(model, caplog) == load_report(out, caplog)
    record = json.loads((out / "run.json").read_text())
    assert record["base_model"] == record["reference_model"] == model
    assert record["seed"] == 42
    assert record["train_data"]["hi"]["pairs"] + record["eval_data"]["hi"]["pairs"] == 24
    assert len(record["train_data"]["hi"]["sha256"]) == 64
    assert record["arguments"]["alignment_objective"] == "mse"
    assert not {"token", "hub_token", "push_to_hub_token"} & set(record["arguments"])


def test_the_same_seed_gives_the_same_model(align):
    one, two, other = (align("--seed", seed, output=f"run{k}") for k, seed in enumerate((1, 1, 2)))
    weights = [load_file(folder / "model.safetensors") for folder in (one, two, other)]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert not all(torch.equal(weights[0][k], weights[2][k]) for k in weights[0])


def test_sentences_need_no_links(align, tmp_path, capsys):
    """No word is linked, and no pair is dropped because it has no link."""
    out = align("--do_train", "--alignment_unit", "sentence", "--max_steps", 2)
    record = json.loads((out / "run.json").read_text())
    settings = record["hyperparameters"]
    assert (settings["alignment_objective"], settings["contrastive_negatives"]) == ("contrastive", "both")
    assert record["variant"] == ["unit sentence", "contrastive", "negatives both"]
    assert record["train_data"]["hi"]["pairs"] == 24
    assert record["train_data"]["hi"]["links"] == 0
    assert record["word_links"] is None
    logged = json.loads((out / "trainer_state.json").read_text())["log_history"]
    assert "sentence_loss" in logged[0]
    assert "alignment_loss" not in logged[0]
    assert "the vectors of sentences and of their English translations" in (out / "README.md").read_text()
    unused = message_of(align, capsys, "--alignment_unit", "sentence", "--aligner", "statistical", output="other")
    assert "--aligner statistical does nothing without --alignment_unit word" in unused


def test_sentences_are_measured_beside_words(align):
    out = align(
        "--do_train",
        "--do_eval",
        "--validation_split_percentage",
        50,
        "--alignment_unit",
        "sentence",
        "--max_steps",
        2,
    )
    measured = results(out)
    assert measured["eval_sentence_loss"] > 0
    assert measured["eval_links"] > 0


@pytest.mark.parametrize("objective", ["mse", "cosine", "contrastive"])
@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_objectives_and_pooling(align, objective, pooling):
    out = align("--alignment_objective", objective, "--word_pooling", pooling, "--max_steps", 2)
    assert results(out)["train_loss"] > 0


@pytest.mark.parametrize("aligner", ["statistical", "dictionary", "encoder"])
def test_aligners_and_links_that_are_kept(align, tmp_path, aligner):
    dictionary = tmp_path / "words.txt"
    dictionary.write_text("viejo old\nмост bridge\nцелый whole\nпuente bridge\nпуть way\npuente bridge\n")
    links = tmp_path / "kept.links"
    words = ("--dictionary_file", dictionary) if aligner == "dictionary" else ()
    first = align("--aligner", aligner, *words, "--write_links", links, "--max_steps", 2)
    assert read_header(links) == {"aligner": aligner, "pairs": "24", "word_splitting": "punctuation"}
    again = align("--links_file", links, "--max_steps", 2, output="again")
    for folder, source in ((first, aligner), (again, "file")):
        assert json.loads((folder / "run.json").read_text())["word_links"] == source
        assert re.search(rf"\| word links +\| {source}", (folder / "README.md").read_text())
    one, other = (load_file(folder / "model.safetensors") for folder in (first, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_links_and_words_that_changed_are_read_again(align, tmp_path):
    """Everything that is made of links is cached; a file of the same name with other links must not get the old."""
    links, words = tmp_path / "my.links", tmp_path / "words.txt"
    trained = []
    for number, (line, word) in enumerate((("0-1", "viejo old"), ("1-0 2-3", "puente bridge"))):
        links.write_text(f"{line}\n" * 24)
        words.write_text(f"{word}\nмост bridge\n")
        for given in (("--links_file", links), ("--aligner", "dictionary", "--dictionary_file", words)):
            out = align(*given, "--max_steps", 1, output=f"run{number}{given[0]}")
            trained.append(json.loads((out / "run.json").read_text())["train_data"]["hi"])
    assert trained[0]["links"] < trained[2]["links"]
    assert trained[1]["sha256"] != trained[3]["sha256"]
    reversed_links = align("--links_file", links, "--reverse_links", "--max_steps", 1, output="reversed")
    record = json.loads((reversed_links / "run.json").read_text())["train_data"]["hi"]
    assert record["sha256"] != trained[2]["sha256"]


def test_several_languages_share_one_model(align, tmp_path, bitext, held_out):
    moses = tmp_path / "ru.txt.gz"
    moses.write_bytes(gzip.compress(of_another_language(bitext, tmp_path / "ru.txt", " ||| ").read_bytes()))
    measured = of_another_language(held_out, tmp_path / "held-out.ru.txt", " ||| ")
    out = align(
        "--languages", "hi", "ru", "--parallel_file", f"hi={bitext}", f"ru={moses}", "--max_train_pairs", 10,
        "--do_train", "--do_eval", "--validation_file", f"hi={held_out}", f"ru={measured}", "--max_eval_pairs", 7,
        "--write_links", f"hi={tmp_path}/hi.links", f"ru={tmp_path}/ru.links",
    )  # fmt: skip
    record = json.loads((out / "run.json").read_text())
    assert [record["train_data"][language]["pairs"] for language in ("hi", "ru")] == [10, 10]
    assert [record["eval_data"][language]["pairs"] for language in ("hi", "ru")] == [7, 7]
    metrics = results(out)
    directions = [metrics[f"eval_{d}_word_retrieval_accuracy"] for d in ("hi-en", "en-hi", "ru-en", "en-ru")]
    assert metrics["eval_word_retrieval_accuracy"] == pytest.approx(sum(directions) / 4)
    hi, ru = ((tmp_path / f"{name}.links").read_text().splitlines() for name in ("hi", "ru"))
    assert [line for line in hi if line[:1] != "#"] == [line for line in ru if line[:1] != "#"][:-1]


def test_measuring_without_training(align, tmp_path, model):
    """--do_eval alone leaves the model as it is; --reference_model says what it is compared with."""
    held_out = ("--do_eval", "--validation_split_percentage", 50)
    alone = results(align(*held_out, output="alone"))
    assert alone["eval_regularization_loss"] == 0
    assert json.loads((tmp_path / "alone" / "run.json").read_text())["train_data"] is None
    assert not (align(*held_out, output="again") / "model.safetensors").exists()
    adjusted = align("--learning_rate", 1e-2, "--num_train_epochs", 3)
    measured = results(align("--model", adjusted, "--reference_model", model, *held_out, output="measured"))
    assert measured["eval_regularization_loss"] > 0
    assert measured["eval_links"] == alone["eval_links"]
    assert measured["eval_alignment_loss"] < alone["eval_alignment_loss"]


def test_settings_from_a_file(run, tmp_path, model, bitext):
    settings = {"model_name_or_path": model, "languages": ["hi"], "parallel_file": [str(bitext)], "use_cpu": True,
                "max_steps": 2, "include_special_tokens": False, "output_dir": str(tmp_path / "out")}  # fmt: skip
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    run(run_align.main, tmp_path / "settings.json", "--max_steps", 1)
    arguments = json.loads((tmp_path / "out" / "run.json").read_text())["arguments"]
    assert (arguments["max_steps"], arguments["include_special_tokens"]) == (1, False)


def test_resume_from_the_last_checkpoint(align):
    schedule = ("--num_train_epochs", 3, "--save_strategy", "steps", "--save_steps", 4)
    whole = align(*schedule, output="whole")
    # What a run that was killed after its checkpoint leaves: no model of its own.
    (whole / "model.safetensors").rename(whole / "finished.safetensors")
    for checkpoint in whole.glob("checkpoint-*"):
        if checkpoint.name != "checkpoint-4":
            checkpoint.rename(checkpoint.with_name("later-" + checkpoint.name))
    align(*schedule, "--resume_from_checkpoint", "true", output="whole")
    one, other = (load_file(whole / f"{name}.safetensors") for name in ("model", "finished"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_stream_is_trained_on_and_resumed(align, tmp_path):
    """What was drawn is kept: a resumed run goes on with the same pairs in the same order."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    rows = [{"hi": tiny.TEXT[k % 5 + 1], "en": f"{tiny.TEXT[0]} {k}"} for k in range(400)]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    schedule = ("--parallel_dataset", folder, "--streaming", "--max_train_pairs", 32, "--num_train_epochs", 2)
    schedule += ("--do_train", "--do_eval", "--validation_split_percentage", 20, "--max_eval_pairs", 10)
    schedule += ("--save_strategy", "steps", "--save_steps", 3)
    whole = align(*schedule, output="whole")
    record = json.loads((whole / "run.json").read_text())
    assert [record[f"{part}_data"]["hi"]["pairs"] for part in ("train", "eval")] == [32, 10]
    (whole / "model.safetensors").rename(whole / "finished.safetensors")
    for checkpoint in whole.glob("checkpoint-*"):
        if checkpoint.name != "checkpoint-3":
            checkpoint.rename(checkpoint.with_name("later-" + checkpoint.name))
    shutil.rmtree(tmp_path / "hf-datasets")  # (the stream itself is repeatable, too)
    align(*schedule, "--resume_from_checkpoint", "true", output="whole")
    one, other = (load_file(whole / f"{name}.safetensors") for name in ("model", "finished"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert json.loads((whole / "run.json").read_text())["train_data"] == record["train_data"]


def test_an_adapter_in_the_place_of_the_whole(align, model):
    whole_story = ("--do_train", "--do_eval", "--validation_split_percentage", 25, "--learning_rate", 0.01)
    out = align("--use_lora", "--lora_rank", 2, *whole_story)
    assert not (out / "model.safetensors").exists()
    assert adapter_config(str(out)).base_model_name_or_path == model
    # Regularized against the model with its adapter off: as against a second copy of it.
    copied = align("--use_lora", "--lora_rank", 2, *whole_story, "--reference_model", model, output="copied")
    for name in ("train_loss", "eval_alignment_loss", "eval_regularization_loss", "eval_word_retrieval_accuracy"):
        assert results(out)[name] == pytest.approx(results(copied)[name], rel=1e-5)
    assert results(out)["eval_regularization_loss"] > 1e-4
    # Measured again as a model, with the original for reference, it gives the same.
    again = align(
        "--model", out, "--reference_model", model, "--do_eval", "--validation_split_percentage", 25, output="again"
    )
    for name in ("eval_alignment_loss", "eval_regularization_loss"):
        assert results(again)[name] == pytest.approx(results(out)[name], rel=1e-4)
    # Merged, it is a plain model that lacks nothing.
    merged = align("--use_lora", "--lora_rank", 2, *whole_story, "--merge_adapter", output="merged")
    assert adapter_config(str(merged)) is None
    assert load_file(merged / "model.safetensors").keys() == load_file(f"{model}/model.safetensors").keys()
    one, other = load_encoder(str(merged)), load_encoder(str(out))
    for name, parameter in one.named_parameters():  # (a pooler that no checkpoint has is random)
        assert name in layout_of(one).missing or parameter.equal(other.get_parameter(name)), name
    # And another adjustment may stand on it.
    stacked = align("--model", out, "--use_lora", output="stacked")
    assert adapter_config(str(stacked)).base_model_name_or_path == str(out)
    load_encoder(str(stacked))


def test_an_adapter_is_resumed(align):
    schedule = ("--use_lora", "--num_train_epochs", 3, "--save_strategy", "steps", "--save_steps", 4)
    whole = align(*schedule, output="whole")
    finished = (whole / "adapter_model.safetensors").read_bytes()
    for checkpoint in whole.glob("checkpoint-*"):
        assert not (checkpoint / "model.safetensors").exists()
        if checkpoint.name != "checkpoint-4":
            checkpoint.rename(checkpoint.with_name("later-" + checkpoint.name))
    align(*schedule, "--resume_from_checkpoint", "true", output="whole")
    assert (whole / "adapter_model.safetensors").read_bytes() == finished


def test_frozen_layers_stay(align, model):
    out = align("--freeze_layers", 1, "--learning_rate", 0.01)
    before, after = AutoModel.from_pretrained(model), AutoModel.from_pretrained(out)
    assert torch.equal(before.embeddings.word_embeddings.weight, after.embeddings.word_embeddings.weight)
    assert not torch.equal(before.encoder.layer[1].output.dense.weight, after.encoder.layer[1].output.dense.weight)


# --- Bad input: one sentence that names what is wrong and what to do, and nothing is written ---


def message_of(align, capsys, *arguments, output="out") -> str:
    """What the script says before it ends with a status that is not 0."""
    with pytest.raises(SystemExit) as end:
        run_script(lambda: align(*arguments, output=output))
    assert end.value.code not in (0, None)
    message = str(end.value.code)
    assert message.startswith("error: ")
    assert "\n" not in message
    return message


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


BAD_DATA = {
    "no-separator.txt": ("a ||| b\nc d\n", r"Line 2 of .*no-separator.txt has 0 separators"),
    "empty.tsv": ("", "empty.tsv is empty"),
    "latin1.tsv": ("a\tb\nñ\tn\n".encode("latin-1"), "Line 2 of .*latin1.tsv is not UTF-8"),
    "columns.csv": ("en,fr\na,b\n", "columns.csv has no column hi .*--source_column"),
}


BAD_LINKS = {
    "beyond.links": ("0-0 1-99\n" + "\n" * 23, "Line 1 of .*beyond.links .*English word 99 .*--reverse_links"),
    "letters.links": ("0-0\n0-x\n" + "\n" * 22, "Line 2 of .*letters.links"),
    "short.links": ("0-0\n", "short.links .*1.*24"),
    "long.links": ("0-0\n" * 25, "long.links .*24"),
    "empty.links": ("", "empty.links is empty"),
}
BAD_FILES = {"--parallel_file": BAD_DATA, "--links_file": BAD_LINKS}


@pytest.mark.parametrize(
    ("argument", "name", "content", "message"),
    [(argument, name, *bad[name]) for argument, bad in BAD_FILES.items() for name in bad],
)
def test_bad_files(align, tmp_path, capsys, argument, name, content, message):
    path = write(tmp_path / name, content)
    assert re.search(message, message_of(align, capsys, argument, path))
    assert not (tmp_path / "out").exists()


def test_files_of_different_length(align, tmp_path, capsys):
    source, english = write(tmp_path / "a.hi", "a\nb\n"), write(tmp_path / "a.en", "a\n")
    message = message_of(align, capsys, "--parallel_file", source, english)
    assert "a.hi has 2 lines and" in message
    assert "a.en has 1;" in message


def test_missing_things(align, tmp_path, capsys):
    assert "There is no file nowhere.tsv" in message_of(align, capsys, "--parallel_file", "nowhere.tsv")
    assert "nowhere.links" in message_of(align, capsys, "--links_file", "nowhere.links")
    assert "There is no model no/model" in message_of(align, capsys, "--model", "no/model")
    assert "There is no model no/model" in message_of(align, capsys, "--reference_model", "no/model")
    assert "no/data cannot be loaded" in message_of(align, capsys, "--parallel_dataset", "no/data")
    assert "--do_eval does nothing without held-out pairs" in message_of(align, capsys, "--do_eval")
    assert "There is no checkpoint x" in message_of(align, capsys, "--resume_from_checkpoint", "x")
    assert "--dictionary_file" in message_of(align, capsys, "--aligner", "dictionary")
    assert not (tmp_path / "out").exists()


BAD_ARGUMENTS = {
    "--langauge hi": "There is no argument --langauge; did you mean --language?",
    "--lr_scheduler_type foo": "foo",
    "--temperature 0": "--temperature",
    "--alignment_weight -1": "--alignment_weight",
    "--do_train --alignment_weight 0 --regularization_weight 0": "--regularization_weight",
    "--do_eval --validation_split_percentage 50 --alignment_weight 0 --regularization_weight 0": "are both 0",
    "--alignment_layer 99": "--alignment_layer 99 does not exist .* choose from 0 .* to 2",
    "--freeze_layers 2": "--freeze_layers 2 leaves nothing to train",
    "--freeze_layers 0-0 --alignment_layer 1 -1": "--freeze_layers 0-0 leaves nothing to train up to --alignment_layer 1",
    "--freeze_embeddings true --alignment_layer 0 -1": "--freeze_embeddings true leaves nothing .* --alignment_layer 0;",
    "--use_lora --freeze_embeddings false": "--freeze_embeddings does nothing with --use_lora",
    "--max_train_pairs 0": "--max_train_pairs 0 .* at least 1",
    "--max_words 1": "None of the 24 pairs of hi can be used",
    "--max_seq_length 5000": "--max_seq_length 5000.* at most 64",
    "--languages hi hi": "name each once",
    "--languages en": "not en",
    "--parallel_dataset data/parallel --parallel_file x.tsv": "are both given; leave one out",
    "--do_eval --validation_split_percentage 50 --use_lora --merge_adapter": "--merge_adapter",
    "--do_predict": "--do_predict does nothing",
    "--streaming": "--streaming needs --parallel_dataset",
    "--parallel_dataset data/parallel --streaming --aligner statistical": "--aligner statistical needs the whole corpus",
    "--parallel_dataset data/parallel --streaming --parallel_config de": "has no configuration de, only",
    "--do_eval --validation_split_percentage 100": "--validation_split_percentage",
    "--do_eval --validation_file x --validation_split_percentage 5": "--validation_file and --validation_split_percentage",
    "--do_eval --validation_split_percentage 50 --eval_layers 99": "--eval_layers 99",
    "--validation_split_percentage 5": "does nothing without --do_eval",
    "--validation_links_file x": "--validation_links_file belongs to --validation_file",
    "--aligner encoder --links_file x.links": "--links_file is not read by --aligner encoder",
    "--aligner file": "--aligner file .*--links_file",
    "--aligner file --do_train --do_eval --validation_file x --validation_links_file y": "--aligner file .*--links_file",
    "--reverse_links": "--reverse_links .*--links_file",
    "--dictionary_file words.txt": "--dictionary_file does nothing with --aligner encoder; .* --aligner dictionary",
    "--links_file a.links b.links": "--links_file names 2 files for hi",
    "--aligner statistical --symmetrization nonsense": "--symmetrization.*nonsense.*grow-diag",
    "--aligner statistical --statistical_model nonsense": "--statistical_model.*nonsense.*fast_align",
}


@pytest.mark.parametrize("arguments", BAD_ARGUMENTS)
def test_bad_arguments(align, tmp_path, capsys, arguments):
    assert re.search(BAD_ARGUMENTS[arguments], message_of(align, capsys, *arguments.split()))
    assert not (tmp_path / "out").exists()


def test_another_kind_of_reference_model(align, tmp_path, capsys):
    other = tiny.checkpoint(tmp_path / "other", hidden_size=32)
    assert "has hidden_size 32, the encoder 16" in message_of(align, capsys, "--reference_model", other)


def test_nothing_is_written_over(align, tmp_path, bitext, capsys):
    sentences = bitext.read_bytes()
    assert "would overwrite" in message_of(align, capsys, "--write_links", bitext)
    assert bitext.read_bytes() == sentences
    trained = align("--num_train_epochs", 2, "--save_strategy", "epoch", output="trained")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "model.safetensors").write_bytes(b"mine")
    checkpoint = next(trained.glob("checkpoint-*"))
    assert "is not empty" in message_of(align, capsys, "--resume_from_checkpoint", checkpoint, output="mine")
    assert (mine / "model.safetensors").read_bytes() == b"mine"


def test_the_pairs_of_the_training_are_not_held_out(align, tmp_path, bitext, capsys):
    copied = shutil.copy(bitext, tmp_path / "copy.tsv")
    for path in (bitext, copied):
        message = message_of(align, capsys, "--do_train", "--do_eval", "--validation_file", path)
        assert "--validation_file" in message
    assert not (tmp_path / "out" / "model.safetensors").exists()
    align("--do_eval", "--validation_file", bitext)


def test_old_numbers_do_not_stand_beside_new_ones(align):
    out = align("--do_train", "--do_eval", "--validation_split_percentage", 50, "--eval_layers", 0)
    align("--do_eval", "--validation_split_percentage", 50, "--overwrite_output_dir")
    assert not [name for name in results(out) if name.startswith("train_") or "layer0" in name]


def test_an_evaluation_strategy_is_for_training(align, held_out):
    out = align("--eval_strategy", "steps", "--eval_steps", 1, "--validation_file", held_out, "--max_steps", 2)
    assert (out / "model.safetensors").exists()


def test_a_checkpoint_that_was_cut_off_is_passed_over(align, tmp_path):
    schedule = ("--num_train_epochs", 2, "--save_strategy", "steps", "--save_steps", 2)
    out = align(*schedule)
    (out / "checkpoint-6" / "trainer_state.json").unlink()
    align(*schedule, "--resume_from_checkpoint", "true")
    assert json.loads((out / "trainer_state.json").read_text())["global_step"] == 6


def test_held_out_pairs_stay_held_out(align, tmp_path, bitext):
    """Whatever else is dropped, and with other links: no pair changes sides."""
    kept = {}
    for name, changes in {"all": (), "short": ("--max_words", 17)}.items():
        held_out = ("--do_train", "--do_eval", "--validation_split_percentage", 40, "--max_steps", 1)
        record = json.loads((align(*held_out, *changes, output=name) / "run.json").read_text())
        kept[name] = record["train_data"]["hi"]["pairs"], record["eval_data"]["hi"]["pairs"]
    assert sum(kept["all"]) == 24
    lines = [line.split("\t")[1] for line in bitext.read_text(encoding="utf-8").splitlines()]
    assert kept["all"][1] == sum(zlib.crc32("".join(line.split()).encode()) < 0.4 * 2**32 for line in lines)
    assert kept["short"][0] <= kept["all"][0]
    assert kept["short"][1] <= kept["all"][1]


def test_settings_in_yaml(run, tmp_path, model, bitext):
    (tmp_path / "settings.yaml").write_text(
        f"model_name_or_path: {model}\nlanguages: [no]\nparallel_file: {bitext}\nuse_cpu: true\nmax_steps: 1\n"
        f"lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {{min_lr: 0.00001}}\nmodel_revision: main\n"
        f"resume_from_checkpoint: false\nreference_model: null\noutput_dir: {tmp_path}/out\n"
    )
    run(run_align.main, tmp_path / "settings.yaml")
    arguments = json.loads((tmp_path / "out" / "run.json").read_text())["arguments"]
    assert arguments["languages"] == ["no"]
    assert arguments["lr_scheduler_kwargs"] == {"min_lr": 0.00001}


def test_an_output_folder_that_is_not_empty(align, tmp_path, capsys):
    kept = write(tmp_path / "out.txt", "mine")
    (tmp_path / "out").mkdir()
    kept = kept.rename(tmp_path / "out" / "mine.txt")
    message = message_of(align, capsys, "--max_steps", 1)
    assert "is not empty (it holds mine.txt)" in message
    assert "--overwrite_output_dir" in message
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]
    align("--max_steps", 1, "--overwrite_output_dir")
    assert kept.read_text() == "mine"
    assert "is a file" in message_of(align, capsys, output=f"encoder/{'config.json'}")


def test_links_of_another_kind_of_words(align, tmp_path, capsys):
    links = tmp_path / "subwords.links"
    align("--word_pooling", "token", "--write_links", links, "--max_steps", 1)
    message = message_of(align, capsys, "--links_file", links, output="other")
    assert "are between subwords; use --word_pooling token with them" in message


# --- Processes ---


def command(model, bitext, output, *arguments) -> list[str]:
    return [str(PROJECT / "run_align.py"), "--model", model, "--language", "hi", "--parallel_file", str(bitext),
            "--output_dir", str(output), "--learning_rate", "1e-3", *QUICK, *map(str, arguments)]  # fmt: skip


def environment(tmp_path) -> dict[str, str]:
    return {"HF_DATASETS_CACHE": str(tmp_path / "cache")}


@pytest.mark.parametrize("divided", DIVISIONS.values(), ids=DIVISIONS)
def test_two_processes_give_the_model_of_one(tmp_path, bitext, divided):
    """The same global batch on two processes: the pooler without gradient disturbs nothing, the means are global."""
    model = tiny.checkpoint(tmp_path / "encoder", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    # Adam hides a wrong scale and turns rounding error into steps; plain gradient descent does neither. (The last batch has
    # one pair, so that a process has none.)
    held_out = ("--do_train", "--do_eval", "--validation_split_percentage", 25, "--max_train_pairs", 13)
    held_out += ("--optim", "sgd", "--learning_rate", 0.1)
    one = command(model, bitext, tmp_path / "one", "--per_device_train_batch_size", 6, *held_out)
    two = command(model, bitext, tmp_path / "two", "--per_device_train_batch_size", 3, *divided, *held_out)
    for n_processes, words in enumerate((one, two), start=1):
        run_process(words, tmp_path / "log", environment(tmp_path), n_processes=n_processes)
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("one", "two")]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-4, atol=1e-5)
    one_metrics, two_metrics = results(tmp_path / "one"), results(tmp_path / "two")
    for name in ("eval_alignment_loss", "eval_regularization_loss", "eval_links", "train_loss"):
        assert two_metrics[name] == pytest.approx(one_metrics[name], rel=1e-4)


@pytest.mark.parametrize("sampling", ["size", "uniform", "ucb"])
def test_two_processes_that_resume_in_an_epoch_go_on_as_before(tmp_path, bitext, sampling):
    """In the second epoch, whose last step is not full: one process has one pair, the other none, and copies are not counted."""
    model = tiny.checkpoint(tmp_path / "encoder", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    how = ("--max_train_pairs", 13, "--per_device_train_batch_size", 3, "--optim", "sgd", "--learning_rate", 0.1,
           "--save_strategy", "steps", "--save_steps", 1, "--num_train_epochs", 2)  # fmt: skip
    if sampling != "size":
        files = (f"hi={bitext}", f"ru={of_another_language(bitext, tmp_path / 'ru.tsv')}")
        how += ("--languages", "hi", "ru", "--parallel_file", *files, "--language_sampling", sampling)
    words = command(model, bitext, tmp_path / "whole", *how)
    run_process(words, tmp_path / "log", environment(tmp_path), n_processes=2)
    last = max(int(folder.name.partition("-")[2]) for folder in (tmp_path / "whole").glob("checkpoint-*"))
    within = tmp_path / "whole" / f"checkpoint-{last // 2 + 1}"
    resumed = command(model, bitext, tmp_path / "resumed", *how, "--resume_from_checkpoint", within)
    run_process(resumed, tmp_path / "log", environment(tmp_path), n_processes=2)
    whole, again = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "resumed"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_two_processes_draw_the_languages_of_one(tmp_path, bitext):
    model = tiny.checkpoint(tmp_path / "encoder", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    russian = of_another_language(bitext, tmp_path / "ru.tsv")
    files = ("--languages", "hi", "ru", "--parallel_file", f"hi={bitext}", f"ru={russian}", "--save_steps", 8)
    sampled = (*files, "--language_sampling", "ucb", "--optim", "sgd", "--learning_rate", 0.1, "--num_train_epochs", 2)
    one = command(model, bitext, tmp_path / "one", "--per_device_train_batch_size", 6, *sampled)
    two = command(model, bitext, tmp_path / "two", "--per_device_train_batch_size", 3, *sampled)
    for n_processes, words in enumerate((one, two), start=1):
        run_process(words, tmp_path / "log", environment(tmp_path), n_processes=n_processes)
    kept = [json.loads((tmp_path / name / "checkpoint-16/run_state.json").read_text()) for name in ("one", "two")]
    assert kept[0]["bandit"]["drawn"] == kept[1]["bandit"]["drawn"]
    for losses in zip(*(part["by_language"] for part in kept)):
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    for name in ("train_alignment_loss_hi", "train_alignment_loss_ru"):
        assert results(tmp_path / "two")[name] == pytest.approx(results(tmp_path / "one")[name], rel=1e-4)


@pytest.mark.parametrize("lora", [(), ("--use_lora", "--lora_rank", 2)])
def test_words_are_linked_anew(align, caplog, lora):
    with caplog.at_level("INFO", "utils.training.relinking"):
        out = align("--realign_every", 2, "--max_steps", 5, *lora)
    steps = [record.getMessage() for record in caplog.records if "linked anew" in record.getMessage()]
    assert len(steps) == 2
    assert json.loads((out / "run.json").read_text())["hyperparameters"]["realign_every"] == 2


def test_two_processes_link_the_same_words_anew(tmp_path, bitext):
    model = tiny.checkpoint(tmp_path / "encoder", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    arguments = ("--max_train_pairs", 13, "--optim", "sgd", "--learning_rate", 0.1, "--realign_every", 1)
    for n_processes, name in enumerate(("one", "two"), start=1):
        words = command(model, bitext, tmp_path / name, *arguments, "--per_device_train_batch_size", 6 // n_processes)
        run_process(words, tmp_path / "log", environment(tmp_path), n_processes=n_processes)
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("one", "two")]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("division", "accumulated", "n_pairs"), [("ddp", 1, 13), ("ddp", 3, 13), ("fsdp", 3, 16)])
def test_negatives_come_from_all_processes(tmp_path, bitext, division, accumulated, n_pairs):
    """Two processes, with or without accumulation, take the step of one with the whole batch."""
    model = tiny.checkpoint(tmp_path / "encoder", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    how = (
        "--do_train",
        "--alignment_unit",
        "both",
        "--max_train_pairs",
        n_pairs,
        "--optim",
        "sgd",
        "--learning_rate",
        0.1,
    )
    divided = ("--per_device_train_batch_size", 3 // accumulated, "--gradient_accumulation_steps", accumulated)
    divided += DIVISIONS[division]
    one = command(model, bitext, tmp_path / "one", "--per_device_train_batch_size", 6, *how)
    two = command(model, bitext, tmp_path / "two", *divided, *how)
    for n_processes, words in enumerate((one, two), start=1):
        run_process(words, tmp_path / "log", environment(tmp_path), n_processes=n_processes)
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("one", "two")]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-5, atol=1e-5)
    assert results(tmp_path / "two")["train_loss"] == pytest.approx(results(tmp_path / "one")["train_loss"], rel=1e-4)


def test_a_killed_run_can_be_resumed(tmp_path, model, bitext):
    arguments = ("--num_train_epochs", 60, "--save_strategy", "steps", "--save_steps", 20)
    words = command(model, bitext, tmp_path / "out", *arguments)
    process = ScriptProcess(words, tmp_path / "log", environment(tmp_path))
    deadline = time.time() + 120
    while not is_whole(tmp_path / "out" / "checkpoint-20") and time.time() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / "model.safetensors").exists()
    resumed = [*words, "--resume_from_checkpoint", tmp_path / "out" / "checkpoint-20"]
    run_process(resumed, tmp_path / "log", environment(tmp_path))
    assert json.loads((tmp_path / "out" / "trainer_state.json").read_text())["global_step"] == 180


def test_a_run_that_is_killed_again_and_again_gives_the_weights_of_one_that_is_not(tmp_path, model, bitext):
    """SIGKILL at a random moment: with a checkpoint at every step, most often while one is written."""
    schedule = ("--num_train_epochs", 25, "--save_strategy", "steps", "--save_steps", 1, "--save_total_limit", 2)
    run_process(command(model, bitext, tmp_path / "whole", *schedule), tmp_path / "log", environment(tmp_path))
    words = command(model, bitext, tmp_path / "cut", *schedule)
    moments, n_killed = random.Random(0), 0
    while not (tmp_path / "cut" / "model.safetensors").exists() and n_killed < 6:
        process = ScriptProcess([*words, "--resume_from_checkpoint", "true"], tmp_path / "log", environment(tmp_path))
        before = {folder.name for folder in (tmp_path / "cut").glob("checkpoint-*")}
        while {folder.name for folder in (tmp_path / "cut").glob("checkpoint-*")} <= before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.25))
        process.send_signal(signal.SIGKILL)
        n_killed += process.wait() == -signal.SIGKILL
    assert n_killed >= 3
    run_process([*words, "--resume_from_checkpoint", "true"], tmp_path / "log", environment(tmp_path))
    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_a_checkpoint_that_was_being_written_is_passed_over(align, capsys):
    schedule = ("--num_train_epochs", 2, "--save_strategy", "steps", "--save_steps", 2)
    out = align(*schedule)
    (out / "model.safetensors").unlink()
    last, before = sorted(out.glob("checkpoint-*"), key=lambda folder: int(folder.name.split("-")[1]), reverse=True)[
        :2
    ]
    state = (last / "trainer_state.json").read_text()
    (last / "trainer_state.json").write_text(state[: len(state) // 2])
    message = message_of(align, capsys, *schedule, "--resume_from_checkpoint", last)
    assert f"{last} is incomplete" in message
    align(*schedule, "--resume_from_checkpoint", "true")
    assert (out / "model.safetensors").exists()
    assert json.loads((last / "trainer_state.json").read_text())["global_step"] == int(last.name.split("-")[1])


# --- Causal models -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", tiny.CAUSAL_ARCHITECTURES)
def test_decoders(align, run, tmp_path, architecture):
    """Frozen weights in bfloat16, an adapter in fp32, which loads again and is measured."""
    folder = tiny.decoder(tmp_path / architecture, architecture)
    out = align("--model", folder, "--use_lora", "--dtype", "bfloat16", "--max_steps", 2, "--learning_rate", 0.01)
    record = json.loads((out / "run.json").read_text())
    taken = {"word_pooling": "end", "include_special_tokens": False, "alignment_layer": [1], "dtype": "bfloat16"}
    assert record["hyperparameters"].items() >= taken.items()
    adapter = load_file(out / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in adapter.values()} == {torch.float32}
    assert all(".layers.0." in name for name in adapter)  # up to the middle
    before, after = load_encoder(folder), load_encoder(str(out))
    assert {weight.dtype for weight in after.parameters()} == {torch.float32}
    moved = {name for name, weight in after.named_parameters() if not torch.equal(weight, before.get_parameter(name))}
    assert moved
    assert all(name.startswith("layers.0.") for name in moved)
    sides = ("--source_file", tmp_path / "a", "--target_file", tmp_path / "b")
    for path, lines in zip(sides[1::2], (tiny.TEXT[1:4], tiny.TEXT[3:6])):
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    models = ("--models", folder, out, "--eval_languages", "hi", "--layers", "all")
    run(run_xsr.main, *models, *sides, "--pooling", "weighted", "--use_cpu", "--output_dir", tmp_path / "xsr")
    measured = results(tmp_path / "xsr")
    spreads = [measured[f"{name}/hi-en_layer1_query_spread"] for name in (architecture, "out")]
    assert spreads[0] != spreads[1]


def test_given_arguments_win_over_those_for_decoders(align, tmp_path):
    given = {"word_pooling": "avg", "include_special_tokens": True}
    words = [word for name, value in given.items() for word in (f"--{name}", str(value).lower())]
    out = align("--model", tiny.decoder(tmp_path / "decoder"), "--max_steps", 1, *words, "--alignment-layer=-1")
    record = json.loads((out / "run.json").read_text())
    assert record["hyperparameters"].items() >= {**given, "alignment_layer": [-1]}.items()


def test_weights_in_bfloat16_are_not_trained(align):
    with pytest.raises(InputError, match="--use_lora"):
        align("--dtype", "bfloat16")
    assert results(align("--dtype", "bfloat16", "--use_lora", "--max_steps", 1))["train_loss"] > 0


# --- Encoders with a decoder -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("architecture", "lora"), [("MT5", ()), ("M2M100", ("--use_lora",))])
def test_encoders_with_a_decoder(align, run, tmp_path, architecture, lora):
    folder = tiny.checkpoint(tmp_path / "seq2seq", architecture, "ForConditionalGeneration", "unigram", vocab_size=512)
    out = align("--model", folder, "--max_steps", 2, "--learning_rate", 0.01, *lora)
    before, after = load_encoder(folder), load_encoder(str(out))
    assert any(not torch.equal(weight, before.get_parameter(name)) for name, weight in after.named_parameters())
    if not lora:
        whole = [AutoModelForSeq2SeqLM.from_pretrained(name) for name in (folder, out)]
        for name, weight in whole[0].get_decoder().named_parameters():
            if "embed_tokens" not in name:
                assert torch.equal(weight, whole[1].get_decoder().get_parameter(name))
    align("--model", out, "--do_eval", "--validation_split_percentage", 50, output="measured")
