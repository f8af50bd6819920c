"""The task scripts as users type them, on a tiny encoder and the embedded samples."""

import json
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from datasets import load_dataset
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    set_seed,
)

import run_align
import run_ner
import run_nli
from helpers import tiny
from helpers.paths import PROJECT
from helpers.processes import ScriptProcess, run_process
from helpers.scripts import DIVISIONS
from helpers.task_scripts import CONTINUAL, DATA, KINDS, QUICK, SCRIPTS, SHORT
from run_qa import QaDataArguments
from utils.alignment.words import WordTokenizer
from utils.core.errors import InputError
from utils.models.adapters import adapter_config


METRICS = {"nli": ["accuracy"], "ner": ["precision", "recall", "f1"], "qa": ["exact_match", "f1"],
           "pos": ["accuracy"]}  # fmt: skip
EVALUATE = ("--do_eval", "--eval_languages", "en", "hi")
FEW = ("--max_train_samples", 24, "--max_eval_samples", 10)


def copy_of(model: str) -> str:
    """The same model under another name."""
    return shutil.copytree(model, model + "-copy")


def results(folder: Path) -> dict:
    return json.loads((folder / "all_results.json").read_text())


def record(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def predictions(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions" / f"{name}.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same(one: dict, other: dict) -> None:
    assert set(one) == set(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


# --- The story ---


@pytest.mark.parametrize("task", [*KINDS, "pos"])
def test_the_whole_story(fine_tune, task, capsys, model):
    out = fine_tune(task, "--do_train", "--do_eval", "--do_predict", "--test_split", "validation", "--max_predict_samples", 7,
                    "--eval_languages", "en", "ru", "hi", "--num_train_epochs", 1)  # fmt: skip
    found, story = results(out), record(out)
    assert found["train_loss"] > 0
    for prefix in ("eval", "predict"):
        for metric in METRICS[task]:
            by_language = [found[f"{prefix}_{language}_{metric}"] for language in ("en", "ru", "hi")]
            assert found[f"{prefix}_zero_shot_{metric}"] == pytest.approx(sum(by_language[1:]) / 2)
        assert found[f"{prefix}_hi_loss"] > 0
    for language in ("en", "ru", "hi"):
        lines = predictions(out, language)
        assert len(lines) == 7
        assert all({"id", "gold", "prediction", "score", "split"} <= set(line) for line in lines)
        assert all(0 <= line["score"] <= 1 for line in lines)
    assert story["base_model"] == model
    assert (story["regime"], story["task_name"]) == ("plain", task)
    assert story["train_data"]["examples"] == len(load_dataset(str(DATA / task), "en", split="train"))
    assert set(story["eval_data"]) == set(story["predict_data"]) == {"en", "ru", "hi"}
    assert len(story["predict_data"]["hi"]["sha256"]) == 64
    assert not {"token", "hub_token", "push_to_hub_token"} & set(story["arguments"])
    printed = capsys.readouterr().out
    assert re.search(r"^predict +" + " +".join(name.replace("_", " ") for name in METRICS[task]), printed, re.M)
    assert re.search(r"^zero-shot +[0-9.]+", printed, re.M)


@pytest.mark.parametrize("task", [*KINDS, "pos"])
def test_translate_train(fine_tune, task, tmp_path, capsys):
    """Trained on a file in Hindi: Hindi selects the checkpoint, English and Russian are zero-shot."""
    load_dataset(str(DATA / task), "hi", split="train").to_json(tmp_path / "hi.jsonl", force_ascii=False)
    out = fine_tune(task, "--train_file", tmp_path / "hi.jsonl", "--train_language", "hi", "--dataset_name", DATA / task,
                    "--do_train", "--do_eval", "--eval_languages", "en", "hi", "ru", "--max_steps", 2, "--eval_strategy", "steps",
                    "--eval_steps", 1, "--save_strategy", "steps", "--save_steps", 1, "--max_eval_samples", 6)  # fmt: skip
    found, story, metric = results(out), record(out), METRICS[task][-1]
    assert found[f"eval_zero_shot_{metric}"] == pytest.approx(
        (found[f"eval_en_{metric}"] + found[f"eval_ru_{metric}"]) / 2
    )
    assert found[f"eval_hi_gap_{metric}"] == pytest.approx(found[f"eval_en_{metric}"] - found[f"eval_hi_{metric}"])
    assert story["arguments"]["metric_for_best_model"] == f"eval_hi_{metric}"
    assert (story["zero_shot"], story["variant"]) == (["en", "ru"], ["train_language hi"])
    assert "examples in hi" in (out / "README.md").read_text()
    assert "Published" not in capsys.readouterr().out


@pytest.mark.parametrize("task", KINDS)
def test_few_shot(fine_tune, task, capsys):
    out = fine_tune(task, "--do_train", "--do_eval", "--eval_languages", "en", "hi", "ru", "--few_shot", "hi=3",
                    "--max_train_samples", 8, "--max_steps", 1, "--max_eval_samples", 6)  # fmt: skip
    found, story, metric = results(out), record(out), METRICS[task][-1]
    assert found[f"eval_zero_shot_{metric}"] == pytest.approx(found[f"eval_ru_{metric}"])
    assert (story["zero_shot"], story["variant"]) == (["ru"], ["few_shot hi=3"])
    assert story["train_data"]["examples"] == 11
    printed = capsys.readouterr().out
    assert "hi (3 shots)" in printed
    assert "Transfer gap" in printed
    assert "in ru without any training data" in (out / "README.md").read_text()
    again = fine_tune(
        task,
        "--model",
        out,
        "--do_eval",
        "--eval_languages",
        "en",
        "hi",
        "ru",
        "--max_eval_samples",
        6,
        output="again",
    )
    assert record(again)["zero_shot"] == ["ru"]
    assert results(again)[f"eval_zero_shot_{metric}"] == pytest.approx(found[f"eval_zero_shot_{metric}"])


@pytest.mark.parametrize("task", KINDS)
def test_a_fine_tuned_model_is_measured_without_training(fine_tune, task):
    """The same numbers again, whatever the batches are; and the model is not written."""
    trained = fine_tune(task, "--do_train", *EVALUATE, *FEW, "--num_train_epochs", 1)
    again = fine_tune(task, "--model", trained, *EVALUATE, *FEW, "--per_device_eval_batch_size", 3, output="again")
    for metric in METRICS[task]:
        assert results(again)[f"eval_hi_{metric}"] == pytest.approx(results(trained)[f"eval_hi_{metric}"])
    assert [line["prediction"] for line in predictions(again, "hi")] == [
        line["prediction"] for line in predictions(trained, "hi")
    ]
    assert not (again / "model.safetensors").exists()


def test_a_run_at_chance_says_so(fine_tune, capsys, caplog):
    """Once, as a warning; not if the training language is not evaluated."""
    untrained = ("--do_train", "--max_steps", 1, "--learning_rate", 0)
    out = fine_tune("ner", *untrained, *EVALUATE)
    assert [one.levelname for one in caplog.records if "en is at chance" in one.message] == ["WARNING"]
    assert "at chance" not in capsys.readouterr().out
    assert record(out)["at_chance"]
    caplog.clear()
    other = fine_tune("ner", *untrained, "--do_eval", "--eval_languages", "hi", output="hi")
    assert not any("at chance" in one.message for one in caplog.records)
    assert not record(other)["at_chance"]


def test_only_the_best_class_of_a_word_is_kept(fine_tune, monkeypatch):
    """Not the logits of all classes, of which there may be many."""
    kept, predicted_tags = [], run_ner.predicted_tags
    monkeypatch.setattr(
        run_ner,
        "predicted_tags",
        lambda data, best, *args, **options: kept.append(best) or predicted_tags(data, best, *args, **options),
    )
    fine_tune("ner", "--do_train", *EVALUATE, "--max_steps", 1)
    assert [array.ndim for best in kept for array in best] == [2] * 4


def test_sentences_beyond_the_limit_count(fine_tune):
    """An entity that the model is not given is missed; the sentence keeps all of its tags."""
    out = fine_tune("ner", "--do_train", *EVALUATE, "--max_seq_length", 6, "--num_train_epochs", 1)
    gold = load_dataset(str(DATA / "ner"), "en", split="validation")
    lines = predictions(out, "en")
    assert [line["gold"] for line in lines] == gold["ner_tags"]
    assert all(len(line["prediction"]) == len(line["gold"]) for line in lines)
    assert all(set(line["prediction"][6:]) <= {"O"} for line in lines)
    n_entities = sum(tag.startswith("B-") for tags in gold["ner_tags"] for tag in tags)
    n_given = sum(tag.startswith("B-") for tags in gold["ner_tags"] for tag in tags[:5])
    assert n_given < n_entities
    assert results(out)["eval_en_recall"] <= n_given / n_entities


def test_words_beyond_the_limit_are_wrong(fine_tune):
    out = fine_tune("pos", "--do_train", *EVALUATE, "--max_seq_length", 6, "--max_steps", 1)
    lines = predictions(out, "en")
    assert any(len(line["gold"]) > 6 for line in lines)
    assert all(set(line["prediction"][6:]) <= {"_"} for line in lines)
    pairs = [pair for line in lines for pair in zip(line["prediction"], line["gold"], strict=True)]
    assert results(out)["eval_en_accuracy"] == pytest.approx(sum(one == other for one, other in pairs) / len(pairs))


def test_treebanks_in_conllu(fine_tune, tmp_path):
    rows = load_dataset(str(DATA / "pos"), "en", split="train").to_list()
    text = ""
    for row in rows:
        words = zip(row["tokens"], row["pos_tags"])
        text += f"# sent_id = {row['id']}\n"
        text += (
            "".join(f"{k}\t{word}\t_\t{tag}" + "\t_" * 6 + "\n" for k, (word, tag) in enumerate(words, start=1)) + "\n"
        )
    path, train = tmp_path / "en.conllu", tmp_path / "train.conllu"
    path.write_text(text, encoding="utf-8")
    train.write_text(text.partition("\n\n")[2], encoding="utf-8")
    out = fine_tune("pos", "--do_train", "--do_eval", "--train_file", train, "--validation_file", path, "--eval_languages", "en",
                    "--max_steps", 1)  # fmt: skip
    assert [(line["id"], line["gold"]) for line in predictions(out, "en")] == [(r["id"], r["pos_tags"]) for r in rows]


def test_paraphrases(fine_tune, tmp_path):
    """The numbers of the classes are text in google/xtreme; PAWS-X is a task of its own beside NLI."""
    rows = load_dataset(str(DATA / "nli"), "en", split="validation").to_list()
    path = tmp_path / "en.jsonl"
    pairs = [
        {"sentence1": row["premise"], "sentence2": row["hypothesis"], "label": str(int(row["label"] == "entailment"))}
        for row in rows
    ]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    spanish = tmp_path / "es.jsonl"
    spanish.write_text("".join(json.dumps({**pair, "sentence1": f"¡{pair['sentence1']}!"}) + "\n" for pair in pairs))
    out = fine_tune("pawsx", "--do_train", "--do_eval", "--train_file", path, "--validation_file", f"es={spanish}",
                    "--eval_languages", "es", "--max_steps", 2)  # fmt: skip
    lines = predictions(out, "es")
    names = [("different", "paraphrase")[int(pair["label"])] for pair in pairs]
    assert [line["gold"] for line in lines] == names
    right = sum(line["prediction"] == line["gold"] for line in lines)
    assert results(out)["eval_es_accuracy"] == pytest.approx(right / len(rows))
    assert (record(out)["task"], record(out)["task_name"]) == ("text-classification", "pawsx")
    again = fine_tune("pawsx", "--model", out, "--do_eval", "--validation_file", f"es={spanish}", "--eval_languages", "es",
                      "--dataset_name", "none", output="again")  # fmt: skip
    assert predictions(again, "es") == lines


def test_questions_across_languages(fine_tune):
    """All pairs of question and context language, joined by id."""
    out = fine_tune("qa", "--do_train", "--do_eval", "--question_languages", "en", "hi", "--context_languages", "hi", "ru",
                    "--max_train_samples", 8, "--num_train_epochs", 1)  # fmt: skip
    names = ["en-hi", "en-ru", "hi", "hi-ru"]
    assert sorted(path.stem for path in (out / "predictions").iterdir()) == sorted(names)
    gold = {language: load_dataset(str(DATA / "qa"), language, split="validation") for language in ("hi", "ru")}
    for name in names:
        context = name.split("-")[-1]
        assert [line["gold"] for line in predictions(out, name)] == [
            answers["text"] for answers in gold[context]["answers"]
        ]
        assert f"eval_{name}_f1" in results(out)
    assert "eval_hi-ru_f1" in results(out)


def test_answers_by_mlqa_s_rules(fine_tune):
    out = fine_tune("qa", "--do_train", *EVALUATE, "--answer_normalization", "mlqa", "--max_steps", 1)
    assert "eval_hi_f1" in results(out)
    for arguments, message in (
        ("--eval_languages en ru", "MLQA has no rules for ru"),
        ("--version_2_with_negative", "MLQA has no questions"),
    ):
        with pytest.raises(InputError, match=message):
            fine_tune(
                "qa", "--do_train", *EVALUATE, "--answer_normalization", "mlqa", *arguments.split(), output="other"
            )


@pytest.mark.parametrize(
    ("given", "read", "rules"),
    [
        ({"dataset_name": "google/xtreme", "dataset_config_name": "MLQA.{language}.{language}"}, {}, "mlqa"),
        ({"dataset_name": "me/mlqa"}, {}, "mlqa"),
        ({"eval_dataset_name": "facebook/mlqa"}, {}, "mlqa"),
        ({"dataset_name": "me/mlqa", "eval_dataset_name": "google/xquad"}, {"hi": "google/xquad xquad.hi"}, "squad"),
        ({}, {"hi": "google/xquad xquad.hi"}, "squad"),
        ({}, {"hi": "google/xtreme MLQA.hi.hi"}, "mlqa"),
        ({"validation_file": ["hi=a"]}, {"hi": "mlqa/MLQA.dev.hi.json"}, "mlqa"),
        ({"dataset_name": "me/mlqa", "validation_file": ["hi=a"]}, {"hi": "mlqa/xquad.hi.json"}, "squad"),
        ({"dataset_name": "me/mlqa", "answer_normalization": "squad"}, {"hi": "me/mlqa hi"}, "squad"),
    ],
)
def test_the_rules_for_answers_are_those_of_what_is_read(given, read, rules):
    data = QaDataArguments(eval_languages=["hi"], **given)
    data.assume_languages(["hi"])
    data.choose_normalization(read)
    assert data.answer_normalization == rules


def test_questions_of_few_shot_languages_are_zero_shot_only_with_another_language():
    data = QaDataArguments(language_pairs=["hi", "en", "hi-en", "en-hi", "ru", "hi-ru"], few_shot=["hi=5"])
    assert data.zero_shot(data.set_names()) == ["ru", "hi-ru"]


def test_questions_without_answer(fine_tune, tmp_path):
    rows = load_dataset(str(DATA / "qa"), "en", split="train").to_list()
    for row in rows[::2]:
        row["answers"] = {"text": [], "answer_start": []}
    path, train = tmp_path / "v2.jsonl", tmp_path / "train.jsonl"
    for file, some in ((path, rows), (train, rows[:-1])):
        file.write_text("".join(json.dumps(row) + "\n" for row in some))
    files = ("--train_file", train, "--validation_file", path, "--eval_languages", "en", "--do_train", "--do_eval")
    with pytest.raises(InputError, match=rf"Line 1 of {train} has no answer; add --version_2_with_negative"):
        fine_tune("qa", *files)
    out = fine_tune("qa", *files, "--version_2_with_negative", "--num_train_epochs", 1)
    found = results(out)
    assert found["eval_en_HasAns_total"] + found["eval_en_NoAns_total"] == len(rows)
    assert found["eval_en_best_f1"] >= found["eval_en_f1"]
    always = fine_tune("qa", "--model", out, *files[:-2], "--do_eval", "--version_2_with_negative",
                       "--null_score_diff_threshold", -1000, output="always")  # fmt: skip
    assert results(always)["eval_en_NoAns_exact"] == 100
    assert results(always)["eval_en_HasAns_exact"] == 0


# --- The same as a plain Trainer ---


@pytest.mark.parametrize("task", ["nli", "ner"])
def test_a_plain_run_is_what_a_plain_trainer_gives(fine_tune, tmp_path, model, task):
    """To the last bit, dropout included, on the same seed and order."""
    how = ("--train_sampling_strategy", "random", "--seed", 5, "--num_train_epochs", 2, "--eval_languages", "en")
    out = fine_tune(task, "--do_train", *how)
    training = run_nli.NliTrainingArguments if task == "nli" else run_ner.NerTrainingArguments
    args = training(output_dir=str(tmp_path / "plain"), use_cpu=True, disable_tqdm=True, per_device_train_batch_size=8,
                    train_sampling_strategy="random", seed=5, num_train_epochs=2, save_strategy="no")  # fmt: skip
    rows, tokenizer = load_dataset(str(DATA / task), "en", split="train"), tiny.pair_tokenizer()
    set_seed(5)
    if task == "nli":
        labels = run_nli.LABELS
        plain = AutoModelForSequenceClassification.from_pretrained(model, num_labels=3)
        encode = lambda row: {**tokenizer(row["premise"], row["hypothesis"], truncation=True, max_length=64),  # noqa: E731
                              "labels": row["label"] if isinstance(row["label"], int) else labels.index(row["label"])}  # fmt: skip
        collator = DataCollatorWithPadding(tokenizer)
    else:
        labels = ["O", *(f"{kind}-{name}" for name in ("LOC", "ORG", "PER") for kind in "BI")]
        plain = AutoModelForTokenClassification.from_pretrained(model, num_labels=len(labels))
        words = WordTokenizer(tokenizer, "start", 64)

        def encode(row):
            encoded = {name: value[0] for name, value in words([row["tokens"]]).items()}
            tags = {position: labels.index(tag) for position, tag in enumerate(row["ner_tags"])}
            of_word = [tags.get(position, -100) for position in encoded["words"]]
            return {
                "input_ids": encoded["input_ids"],
                "labels": [of_word[k] if k >= 0 else -100 for k in encoded["word_ids"]],
            }

        collator = DataCollatorForTokenClassification(tokenizer)
    trainer = Trainer(
        model=plain,
        args=args,
        train_dataset=rows.map(encode, remove_columns=rows.column_names),
        data_collator=collator,
        processing_class=tokenizer,
    )
    trainer.model_accepts_loss_kwargs = False
    trainer.train()
    trainer.save_model()
    assert_same(weights(out), weights(tmp_path / "plain"))


# --- Continual learning ---


@pytest.mark.parametrize("task", KINDS)
def test_continual_learning(fine_tune, task, capsys):
    plain = fine_tune(task, "--do_train", *EVALUATE, *FEW, "--num_train_epochs", 1, output="plain")
    capsys.readouterr()
    out = fine_tune(task, "--do_train", *EVALUATE, *FEW, "--num_train_epochs", 1, *CONTINUAL)
    printed = capsys.readouterr().out
    for name in ("task_loss", "alignment_loss", "regularization_loss"):
        assert f"'{name}'" in printed
    story = record(out)
    assert story["regime"] == "continual"
    assert story["parallel_data"]["hi"]["pairs"] > 0
    assert any(not torch.equal(weights(out)[name], weight) for name, weight in weights(plain).items())
    nothing = fine_tune(task, "--do_train", *EVALUATE, *FEW, "--num_train_epochs", 1, *CONTINUAL, "--alignment_weight", 0,
                        "--regularization_weight", 0, output="nothing")  # fmt: skip
    assert_same(weights(nothing), weights(plain))


@pytest.mark.parametrize("task", KINDS)
def test_continual_learning_of_sentences(fine_tune, task, capsys):
    """They need no word links: an aligner is refused."""
    given = dict(zip(CONTINUAL[1::2], CONTINUAL[2::2]))
    pairs = ("--continual", *(word for name in ("--language", "--parallel_dataset") for word in (name, given[name])))
    how = ("--do_train", "--max_steps", 2, "--logging_steps", 1, *FEW, "--alignment_unit", "sentence", "--use_lora")
    story = record(fine_tune(task, *how, *pairs, "--gradient_accumulation_steps", 2))
    printed = capsys.readouterr().out
    assert "'sentence_loss'" in printed
    assert "'alignment_loss'" not in printed
    assert story["hyperparameters"]["alignment_objective"] == "contrastive"
    assert story["parallel_data"]["hi"]["links"] == 0
    with pytest.raises(InputError, match="--aligner dictionary does nothing without --alignment_unit word"):
        fine_tune(task, *how, *CONTINUAL, output="other")


def test_the_original_model_is_found_by_the_records(run, fine_tune, tmp_path, model, words):
    """original → adjusted → fine-tuned → fine-tuned again: f0 is the original, unless it is named."""
    adjusted = tmp_path / "adjusted"
    run(run_align.main, "--model", model, "--language", "hi", "--parallel_dataset", DATA / "parallel", "--aligner", "dictionary",
        "--dictionary_file", words, "--max_steps", 2, "--output_dir", adjusted, "--use_cpu", "--disable_tqdm", "true")  # fmt: skip
    first = fine_tune("nli", "--model", adjusted, "--do_train", "--max_steps", 2, *CONTINUAL, output="first")
    second = fine_tune("ner", "--model", first, "--do_train", "--max_steps", 2, *CONTINUAL, output="second")
    assert record(first)["reference_model"] == record(second)["reference_model"] == model
    named = fine_tune("nli", "--model", adjusted, "--do_train", "--max_steps", 2, *CONTINUAL, "--reference_model", adjusted,
                      output="named")  # fmt: skip
    assert record(named)["reference_model"] == str(adjusted)
    Path(model).rename(tmp_path / "moved")
    with pytest.raises(InputError, match=f"{adjusted} .*{model}.*--reference_model"):
        fine_tune("nli", "--model", adjusted, "--do_train", "--max_steps", 2, *CONTINUAL, output="lost")


# --- Choosing a checkpoint ---


@pytest.mark.parametrize("task", KINDS)
def test_an_adapter_for_the_task(fine_tune, run, tmp_path, model, words, task):
    """On an adjustment that is an adapter itself, then measured by its name alone, and merged."""
    adjusted = str(tmp_path / "adjusted")
    run(run_align.main, "--model", model, "--language", "hi", "--parallel_dataset", DATA / "parallel", "--aligner", "dictionary",
        "--dictionary_file", words, "--use_lora", "--max_steps", 2, "--output_dir", adjusted, *QUICK)  # fmt: skip
    train = (
        "--model",
        adjusted,
        "--do_train",
        *EVALUATE,
        *FEW,
        "--max_steps",
        3,
        "--use_lora",
        "--learning_rate",
        0.01,
    )
    out = fine_tune(task, *train)
    assert adapter_config(str(out)).base_model_name_or_path == adjusted
    assert not (out / "model.safetensors").exists()
    measured = fine_tune(task, "--model", out, *EVALUATE, *FEW, output="measured")
    merged = fine_tune(task, *train, "--merge_adapter", output="merged")
    assert adapter_config(str(merged)) is None
    again = fine_tune(task, "--model", merged, *EVALUATE, *FEW, output="again")
    predictions = [(folder / "predictions" / "hi.jsonl").read_text() for folder in (measured, again)]
    assert predictions[0] == predictions[1]
    for name, value in results(out).items():
        if name.startswith(("eval_hi_loss", "eval_en_loss")):
            assert results(measured)[name] == pytest.approx(value, rel=1e-3)


def test_layers_stay_frozen_while_a_task_is_learned(fine_tune, model):
    train = ("--do_train", "--max_steps", 2, "--learning_rate", 0.01, *CONTINUAL)
    out = fine_tune("ner", *train, "--freeze_layers", "back", "--freeze_embeddings", "true")
    before, after = load_file(f"{model}/model.safetensors"), weights(out)
    changed = {name for name in before.keys() & after.keys() if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".layer.0." in name for name in changed)
    assert {"frozen back", "embeddings frozen"} <= set(record(out)["variant"])
    with pytest.raises(InputError, match="--freeze_layers .* without --continual"):
        fine_tune("ner", "--do_train", "--freeze_layers", "back", output="plain")


def test_frozen_layers_leave_some_to_align_in_a_decoder(fine_tune, tmp_path):
    """Its middle layer is aligned, and all that this layer depends on is frozen."""
    folder = tiny.decoder(tmp_path / "decoder")
    train = ("--model", folder, "--do_train", "--max_steps", 1, *CONTINUAL)
    with pytest.raises(InputError, match="leaves nothing to train"):
        fine_tune("ner", *train, "--freeze_layers", "front")
    out = fine_tune("ner", *train, "--freeze_layers", "back", output="back")
    assert record(out)["hyperparameters"]["alignment_layer"] == [1]


def test_a_decoder_without_pad_token(fine_tune, tmp_path):
    folder = tiny.decoder(tmp_path / "decoder")
    out = fine_tune("nli", "--model", folder, "--use_lora", "--do_train", "--do_eval", "--max_steps", 1)
    again = fine_tune("nli", "--model", out, "--do_eval", output="again")
    first, second = (json.loads((folder / "eval_results.json").read_text()) for folder in (out, again))
    assert first["eval_en_loss"] == pytest.approx(second["eval_en_loss"], rel=1e-3)


def test_an_adapter_with_continual_learning(fine_tune, model):
    """The original model is the one below the adapter: no second copy of it, and the same result as with one."""
    train = (
        "--do_train",
        "--max_steps",
        3,
        *CONTINUAL,
        "--use_lora",
        "--learning_rate",
        0.01,
        "--alignment_weight",
        1,
    )
    without_copy = fine_tune("nli", *train)
    with_copy = fine_tune("nli", *train, "--reference_model", copy_of(model), output="copied")
    one, other = (load_file(folder / "adapter_model.safetensors") for folder in (without_copy, with_copy))
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("select_on", [None, "hi"])
def test_the_best_checkpoint_is_kept(fine_tune, select_on):
    chosen = ("--select_on", select_on) if select_on else ()
    out = fine_tune("nli", "--do_train", *EVALUATE, "--eval_strategy", "steps", "--eval_steps", 2, "--max_steps", 8,
                    "--learning_rate", 0.01, "--max_eval_samples", 20, *chosen)  # fmt: skip
    state = json.loads((out / "trainer_state.json").read_text())
    name = f"eval_{select_on or 'en'}_accuracy"
    measured = [log[name] for log in state["log_history"] if name in log]
    assert len(measured) >= 4
    assert state["best_metric"] == max(measured)
    assert results(out)[name] == max(measured)
    assert record(out)["arguments"]["metric_for_best_model"] == name


# --- What can be wrong ---


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--do_eval --continual", ["--continual", "--do_train"]),
        ("--do_train --language hi", ["--languages", "--continual"]),
        ("--do_train --alignment_weight 0", ["--alignment_weight", "--continual"]),
        ("--do_train --aligner statistical", ["--aligner", "--continual"]),
        ("--do_train --continual", ["--language", "--continual"]),
        ("--do_train --continual --language hi", ["--parallel_dataset", "--parallel_file"]),
        ("--do_train --continual --language hi --parallel_dataset data/parallel --alignment_every 0", ["--alignment_every 0"]),
        ("--do_train --select_on hi", ["--select_on", "--eval_strategy"]),
        ("--do_train --do_eval --eval_strategy epoch --eval_languages hi", [" en,", "(hi)", "--select_on"]),
        ("--do_train --eval_strategy epoch --select_on hi --metric_for_best_model eval_en_loss", ["--select_on", "--metric_for_best_model"]),
        ("--do_train --max_seq_length 4000", ["--max_seq_length 4000"]),
        ("--do_train --do_eval --eval_languages en xx", ["configuration", "xx"]),
        ("--do_train --dataset_name no/such", ["no/such"]),
        ("--do_train --train_file nowhere.jsonl", ["nowhere.jsonl"]),
        ("--do_train --model no-such-model", ["no-such-model"]),
    ],
)  # fmt: skip
def test_bad_arguments(fine_tune, monkeypatch, arguments, named, tmp_path):
    monkeypatch.chdir(PROJECT)
    with pytest.raises(InputError) as error:
        fine_tune("nli", *arguments.split())
    assert all(name in str(error.value) for name in named)
    assert not (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.parametrize("task", KINDS)
def test_a_model_without_a_head_is_not_measured(fine_tune, task):
    with pytest.raises(InputError, match="is not fine-tuned for .*; add --do_train"):
        fine_tune(task, *EVALUATE)


def test_a_head_of_another_task_is_replaced(fine_tune):
    """A model with three labels goes on with seven, as if it had none."""
    first = fine_tune("nli", "--do_train", "--max_steps", 1, output="first")
    out = fine_tune("ner", "--model", first, "--do_train", *EVALUATE, "--max_steps", 1)
    assert len(json.loads((out / "config.json").read_text())["id2label"]) == 7


def test_the_labels_keep_the_order_of_the_model(fine_tune, tmp_path, model):
    """A fine-tuned model from elsewhere may number its labels differently."""
    names = ["contradiction", "entailment", "neutral"]
    folder = tmp_path / "elsewhere"
    made = AutoModelForSequenceClassification.from_pretrained(model, id2label=dict(enumerate(names)))
    with torch.no_grad():
        made.classifier.bias.copy_(torch.tensor([0.0, 100.0, 0.0]))
    made.save_pretrained(folder)
    tiny.pair_tokenizer().save_pretrained(folder)
    out = fine_tune("nli", "--model", folder, *EVALUATE)
    assert {line["prediction"] for line in predictions(out, "en")} == {"entailment"}
    assert results(out)["eval_en_accuracy"] == pytest.approx(1 / 3)


def test_no_block_stands_in_two_scripts():
    """What two scripts need stands once in utils/."""
    blocks = {}
    for task in SCRIPTS:
        lines = [line.strip() for line in (PROJECT / f"run_{task}.py").read_text().splitlines()]
        usual = ("#", "from ", "import ", "if __name__", "run_script(")
        lines = [line for line in lines if re.search(r"\w", line) and not line.startswith(usual)]
        for first in range(len(lines) - 5):
            blocks.setdefault("\n".join(lines[first : first + 6]), set()).add(task)
    assert [block for block, tasks in blocks.items() if len(tasks) > 1] == []


# --- Processes ---


def environment(tmp_path) -> dict[str, str]:
    return {"HF_DATASETS_CACHE": str(tmp_path / "cache")}


def command(task, model, output, words, *arguments) -> list[str]:
    return [str(word) for word in (PROJECT / f"run_{task}.py", "--model", model, "--dataset_name", DATA / task, "--output_dir", output,
                                   "--use_cpu", "--disable_tqdm", "true", *SHORT[task], "--dictionary_file", words, *CONTINUAL,
                                   *arguments)]  # fmt: skip


@pytest.mark.parametrize(("accumulated", "n_pairs"), [(1, 5), (2, 3)])
def test_negatives_of_pairs_come_from_all_processes(tmp_path, words, accumulated, n_pairs):
    """Though one process has more pairs than the other, and some batches have none."""
    folder = tmp_path / "encoder"
    tiny.model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).save_pretrained(folder)
    tiny.pair_tokenizer().save_pretrained(folder)
    how = ("--do_train", "--max_train_samples", 16, "--optim", "sgd", "--learning_rate", 0.1, "--num_train_epochs", 1,
           "--save_strategy", "no", "--alignment_weight", 1, "--alignment_unit", "both", "--alignment_batch_size", n_pairs)  # fmt: skip
    divided = ("--per_device_train_batch_size", 4 // accumulated, "--gradient_accumulation_steps", accumulated)
    one = command("ner", folder, tmp_path / "one", words, *how, "--per_device_train_batch_size", 8)
    two = command("ner", folder, tmp_path / "two", words, *how, *divided)
    for n_processes, line in enumerate((one, two), start=1):
        run_process(line, tmp_path / "log", environment(tmp_path), tmp_path, n_processes)
    for name, weight in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(tmp_path / "two")[name], weight, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("task", ["ner"])
@pytest.mark.parametrize("divided", DIVISIONS.values(), ids=DIVISIONS)
def test_two_processes_give_the_model_of_one(tmp_path, words, task, divided):
    """The same global batch on two processes, though its halves have unevenly many labels and links, and the last batch
    has one row."""
    folder = tmp_path / "encoder"
    tiny.model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).save_pretrained(folder)
    tiny.pair_tokenizer().save_pretrained(folder)
    how = ("--do_train", *EVALUATE, "--max_train_samples", 49, "--max_eval_samples", 5, "--optim", "sgd", "--learning_rate", 0.1,
           "--num_train_epochs", 1, "--logging_steps", 1, "--save_strategy", "no")  # fmt: skip
    how += () if divided else ("--log_gradient_cosine", 1)
    one = command(task, folder, tmp_path / "one", words, *how, "--per_device_train_batch_size", 8)
    two = command(task, folder, tmp_path / "two", words, *how, "--per_device_train_batch_size", 4, *divided)
    for n_processes, line in enumerate((one, two), start=1):
        run_process(line, tmp_path / "log", environment(tmp_path), tmp_path, n_processes)
    for name, weight in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(tmp_path / "two")[name], weight, rtol=1e-4, atol=1e-5)
    gradients = [
        [
            {name: value for name, value in log.items() if name.startswith("gradient_")}
            for log in json.loads((tmp_path / output / "trainer_state.json").read_text())["log_history"]
            if "gradient_norm_task" in log
        ]
        for output in ("one", "two")
    ]
    assert len(gradients[0]) == len(gradients[1]) == (0 if divided else 7)
    for here, there in zip(*gradients):
        assert here == pytest.approx(there, rel=1e-3, abs=1e-4)
    # (The evaluation's loss is Trainer's mean of means over batches, which are others here.)
    for name in ("train_loss", "eval_en_recall", "eval_hi_f1"):
        assert results(tmp_path / "two")[name] == pytest.approx(results(tmp_path / "one")[name], rel=1e-3)
    assert predictions(tmp_path / "two", "hi") == [
        {**line, "score": pytest.approx(line["score"], abs=1e-3)} for line in predictions(tmp_path / "one", "hi")
    ]


def test_two_processes_that_resume_in_an_epoch_go_on_as_before(tmp_path, words):
    """In the second epoch, whose last step has one row, which its copies in the other batch do not change."""
    folder = tmp_path / "encoder"
    tiny.model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).save_pretrained(folder)
    tiny.pair_tokenizer().save_pretrained(folder)
    how = ("--do_train", "--max_train_samples", 17, "--per_device_train_batch_size", 4, "--optim", "sgd", "--learning_rate", 0.1,
           "--num_train_epochs", 2, "--save_strategy", "steps", "--save_steps", 1)  # fmt: skip
    whole = command("ner", folder, tmp_path / "whole", words, *how)
    run_process(whole, tmp_path / "log", environment(tmp_path), tmp_path, 2)
    within = tmp_path / "whole" / "checkpoint-4"
    resumed = command("ner", folder, tmp_path / "resumed", words, *how, "--resume_from_checkpoint", within)
    run_process(resumed, tmp_path / "log", environment(tmp_path), tmp_path, 2)
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "resumed"))


def test_a_run_that_is_interrupted_goes_on(tmp_path, model, words):
    """Ctrl-C in a terminal, SIGTERM from a scheduler: a checkpoint, a sentence, and the same weights in the end."""
    how = ("--do_train", "--do_eval", "--eval_languages", "en", "--num_train_epochs", 12, "--logging_steps", 1,
           "--max_train_samples", 64, "--max_eval_samples", 10, "--per_device_train_batch_size", 8)  # fmt: skip
    run_process(
        command("nli", model, tmp_path / "whole", words, *how), tmp_path / "log", environment(tmp_path), tmp_path
    )
    n_steps = json.loads((tmp_path / "whole" / "trainer_state.json").read_text())["global_step"]
    for number in (signal.SIGINT, signal.SIGTERM):
        out = tmp_path / f"cut{number}"
        cut = command("nli", model, out, words, *how)
        process = ScriptProcess(cut, tmp_path / f"{number}.log", environment(tmp_path), tmp_path)
        process.wait_until(lambda process=process: "'epoch': '7" in process.text)  # somewhere in the second half
        process.send_signal(number)
        assert process.wait() == 128 + number
        assert re.search(r"Interrupted after step \d+ of \d+\. .*--resume_from_checkpoint true", process.text)
        assert "Traceback" not in process.text
        (checkpoint,) = out.glob("checkpoint-*")
        assert n_steps / 2 < int(checkpoint.name.split("-")[1]) < n_steps
        run_process([*cut, "--resume_from_checkpoint", "true"], tmp_path / "log", environment(tmp_path), tmp_path)
        assert_same(weights(tmp_path / "whole"), weights(out))
        assert results(tmp_path / "whole")["eval_en_loss"] == results(out)["eval_en_loss"]
