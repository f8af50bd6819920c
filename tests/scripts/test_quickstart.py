"""The story of the quickstart, shortened to one language: adjustment makes words find their translations."""

import json
import re

import pytest

import quickstart
import run_align
from data.sample_model import sample_model
from helpers.paths import DATA, PROJECT


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
        for k, language in enumerate(quickstart.LANGUAGES):
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


def test_the_readme_shows_the_same_table():
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    columns = ["foreign → English", "English → foreign"]
    assert f"| | words: {columns[0]} | {columns[1]} | sentences: {columns[0]} | {columns[1]} |" in readme
    for description in quickstart.MODELS.values():
        assert re.search(rf"^\| {description} \|( \d\d\.\d \|){{4}}$", readme, re.MULTILINE)
