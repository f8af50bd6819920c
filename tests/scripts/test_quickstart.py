"""The story of the quickstart, shortened to one language: adjustment makes words find their translations."""

import json
import re

import pytest

import quickstart
import run_align
from data.sample_model import sample_model
from helpers.paths import DATA, PROJECT
from utils.alignment.words import split_on_punctuation
from utils.core.result_tables import ResultTable


@pytest.mark.xdist_group("sample model")
def test_word_retrieval_rises(run, tmp_path):
    held_out = ("--validation_file", DATA / "xsr" / "hi.jsonl", "--do_eval", "--do_train", "--eval_on_start", "true")
    training = ("--alignment_objective", "contrastive", "--learning_rate", 3e-4, "--max_steps", 6, "--max_train_pairs", 100,
                "--max_eval_pairs", 40, "--per_device_train_batch_size", 16)  # fmt: skip
    run(
        run_align.main, "--model", sample_model(), "--language", "hi", "--parallel_dataset", DATA / "parallel",
        *held_out, *training, "--output_dir", tmp_path / "out", "--save_strategy", "no", "--use_cpu",
    )  # fmt: skip
    state = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    before = next(log for log in state["log_history"] if "eval_word_retrieval_accuracy" in log)
    after = json.loads((tmp_path / "out" / "all_results.json").read_text())
    for direction in ("hi-en", "en-hi"):
        name = f"eval_{direction}_word_retrieval_accuracy"
        assert after[name] > before[name] + 0.02


def test_the_table(tmp_path):
    """Means over the languages, each number in its place."""
    sentences = {}
    for model, share in (("original", 0.1), ("mse", 0.2), ("contrastive", 0.3)):
        words = {}
        for k, language in enumerate([*quickstart.LANGUAGES, quickstart.UNREAD]):
            words[f"eval_{language}-en_word_retrieval_accuracy"] = share + 0.01 * k
            words[f"eval_en-{language}_word_retrieval_accuracy"] = share + 0.04
            sentences[f"{model}/{language}-en_layer4_accuracy"] = share + 0.05
            sentences[f"{model}/en-{language}_layer4_accuracy"] = share + 0.06
        (tmp_path / model).mkdir()
        (tmp_path / model / "all_results.json").write_text(json.dumps(words))
    (tmp_path / "xsr").mkdir()
    (tmp_path / "xsr" / "all_results.json").write_text(json.dumps(sentences))
    table = quickstart.results(tmp_path, {name: name for name in quickstart.MODELS})
    assert table.rows[0] == ["original encoder", "11.5", "14.0", "15.0", "16.0"]
    assert table.rows[2] == ["adjusted, contrastive", "31.5", "34.0", "35.0", "36.0"]
    assert table.rows[3] == ["hi-Latn: original encoder", "14.0", "14.0", "15.0", "16.0"]
    assert table.rows[5] == ["hi-Latn: adjusted, contrastive", "34.0", "34.0", "35.0", "36.0"]
    assert len(table.rows) == 6


@pytest.mark.parametrize("folder", ["parallel", "xsr"])
def test_links_of_hindi_are_those_of_hindi_in_latin_letters(folder):
    """Word k of a sentence is word k of the other one."""
    names = {"parallel": ("hi", "hi-Latn"), "xsr": ("source_sentence", "source_sentence")}[folder]
    hindi, latin = (
        [json.loads(line)[name] for line in (DATA / folder / f"{code}.jsonl").read_text(encoding="utf-8").splitlines()]
        for code, name in zip(("hi", "hi-Latn"), names)
    )
    lengths = [[len(split_on_punctuation(text)) for text in texts] for texts in (hindi, latin)]
    assert lengths[0] == lengths[1]


def test_the_readme_shows_the_same_table():
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    columns = ["foreign → English", "English → foreign"]
    assert f"| | words: {columns[0]} | {columns[1]} | sentences: {columns[0]} | {columns[1]} |" in readme
    for prefix in ("", f"{quickstart.UNREAD}: "):
        for description in quickstart.MODELS.values():
            assert re.search(rf"^\| {prefix}{description} \|( \d+\.\d \|){{4}}$", readme, re.MULTILINE)


def test_hindi_in_latin_letters_takes_the_links_of_hindi(run, monkeypatch, tmp_path, model):
    """The commands up to the measuring of the original encoder, with a tiny one, then the arguments of the others."""
    commands = []

    def main_of(script: str, *words: object) -> None:
        commands.append([script, *map(str, words)])
        if script == "run_align.py" and "--do_train" not in words:
            monkeypatch.chdir(PROJECT)
            run(run_align.main, *words, "--max_eval_pairs", 5, "--use_cpu")

    monkeypatch.setattr(quickstart, "run", main_of)
    monkeypatch.setattr(quickstart, "sample_model", lambda: model)
    monkeypatch.setattr(quickstart, "RUNS", tmp_path)
    monkeypatch.setattr(quickstart, "LANGUAGES", ("hi",))
    monkeypatch.setattr(quickstart, "results", lambda *_: ResultTable(["model"], []))
    quickstart.main()
    found = json.loads((tmp_path / "original" / "all_results.json").read_text(encoding="utf-8"))
    assert all(f"eval_{language}-en_word_retrieval_accuracy" in found for language in ("hi", "hi-Latn"))
    assert [script for script, *_ in commands] == ["run_align.py"] * 5 + ["run_xsr.py"]
    for _, *words in commands[3:5]:
        assert f"hi-Latn={tmp_path}/parallel.hi.links" in words
        assert f"hi-Latn={tmp_path}/xsr.hi.links" in words
