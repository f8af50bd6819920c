"""The last lines of every script: where everything is, and commands that work."""

import shlex
from pathlib import Path

import pytest

import compare_runs
import run_align
import run_distances
import run_xsr
import view_links
from helpers.paths import DATA, PROJECT
from utils.tasks import project_labels


QUICK = (
    "--use_cpu",
    "--max_steps",
    1,
    "--per_device_train_batch_size",
    4,
    "--save_strategy",
    "no",
    "--report_to",
    "none",
)


def commands_in(said: str) -> list[list[str]]:
    """The commands below the last `Next:`."""
    lines = said.rpartition("Next:\n")[2].splitlines()
    assert all(line.startswith("  ") for line in lines), said
    return list(map(shlex.split, lines))


@pytest.fixture
def works(parses):
    """See that a command starts a script of this project, whose arguments it has."""

    def check(words: list[str], script: str) -> None:
        position = next(k for k, word in enumerate(words) if word.endswith(".py"))
        assert words[:position] in (["python"], ["accelerate", "launch"])
        assert Path(words[position]) == PROJECT / f"{script}.py"
        assert parses(script, words[position + 1 :])

    return check


def adjust(run, model, bitext, output_dir):
    """A short run of run_align.py."""
    arguments = ("--model", model, "--language", "hi", "--parallel_file", bitext, "--output_dir", output_dir)
    run(run_align.main, *arguments, *QUICK)


def test_from_an_encoder_to_a_comparison(run, tmp_path, model, bitext, fine_tune, works, capsys):
    """Every script that leads to a comparison names the next one."""
    found = []
    adjusted, before, after = (tmp_path / name for name in ("adjusted", "before", "after"))
    adjust(run, model, bitext, adjusted)
    said = capsys.readouterr().out
    assert f"In {adjusted}: model: model.safetensors; model card: README.md;" in said
    found += zip(commands_in(said), ("run_xsr", "run_ner"))
    assert [model, str(adjusted)] == commands_in(said)[0][-2:]
    ner = (
        "--do_train",
        "--do_eval",
        "--eval_languages",
        "en",
        "hi",
        "--max_train_samples",
        8,
        "--max_eval_samples",
        8,
    )
    fine_tune("ner", *ner, *QUICK, output="before")
    said = commands_in(capsys.readouterr().out)
    found += zip(said, ("run_align", "run_ner", "compare_runs"))
    assert "--max_train_samples" in said[1]
    assert said[1].count("--model") == said[1].count("--output_dir") == 1
    fine_tune("ner", "--model", adjusted, *ner, *QUICK, output="after")
    said = commands_in(capsys.readouterr().out)
    found += zip(said, ("run_ner", "compare_runs"))
    assert said[0][said[0].index("--model") + 1] == model
    run(compare_runs.main, after, before, "--output_dir", tmp_path / "comparison", "--n_resamples", 100)
    said = capsys.readouterr().out
    assert "comparison.md" in said
    found += zip(commands_in(said), ("compare_runs",))
    assert len(found) == 8
    for words, script in found:
        works(words, script)
    # The comparison that was named gives a result.
    (again,) = (words for words, script in found[-1:])
    run(compare_runs.main, *again[2:])
    assert "Next:" not in capsys.readouterr().out


def test_from_measurements(run, tmp_path, model, bitext, works, capsys):
    found = []
    adjust(run, model, bitext, tmp_path / "a")
    capsys.readouterr()
    sentences = ("--dataset_name", DATA / "xsr", "--eval_languages", "hi", "--use_cpu", "--max_samples", 20)
    for models, script in (
        ([model], "run_align"),
        ([tmp_path / "a"], "run_xsr"),
        ([model, tmp_path / "a"], "compare_runs"),
    ):
        run(run_xsr.main, "--models", *models, *sentences, "--output_dir", tmp_path / f"xsr-{script}")
        found += zip(commands_in(capsys.readouterr().out), [script])
    pairs = ("--models", model, tmp_path / "a", "--language", "hi", "--parallel_file", bitext, "--use_cpu")
    run(run_distances.main, *pairs, "--output_dir", tmp_path / "distances")
    found += zip(commands_in(capsys.readouterr().out), ["run_xsr"])
    run(view_links.main, *pairs, "--output_file", tmp_path / "links.html")
    found += zip(commands_in(capsys.readouterr().out), ["run_xsr"])
    assert len(found) == 5
    comparison = found[2][0]
    run(compare_runs.main, *comparison[2:], "--n_resamples", 100)
    for words, script in found:
        works(words, script)


def test_from_projected_labels(run, tmp_path, works, capsys):
    (tmp_path / "tagged.jsonl").write_text(
        '{"tokens": ["Anna", "sleeps"], "ner_tags": ["B-PER", "O"]}\n', encoding="utf-8"
    )
    (tmp_path / "translations").write_text("Anna duerme\n", encoding="utf-8")
    (tmp_path / "links").write_text("0-0 1-1\n", encoding="utf-8")
    files = ("--tagged_file", tmp_path / "tagged.jsonl", "--translation_file", tmp_path / "translations")
    made = ("--links_file", tmp_path / "links", "--write_tagged", tmp_path / "projected.jsonl")
    run(project_labels.main, "--task", "ner", "--language", "es", *files, *made)
    (words,) = commands_in(capsys.readouterr().out)
    works(words, "run_ner")


def test_a_run_of_a_series_leaves_the_next_steps_to_it(run, tmp_path, model, bitext, monkeypatch, capsys):
    monkeypatch.setenv("PART_OF_SERIES", "1")
    adjust(run, model, bitext, tmp_path / "a")
    said = capsys.readouterr().out
    assert f"In {tmp_path / 'a'}: " in said
    assert "Next:" not in said


@pytest.mark.parametrize("script", [path.name for path in PROJECT.glob("*.py")])
def test_every_script_has_last_lines(script):
    """(Those of the tasks are in `publish_task_model`.)"""
    source = (PROJECT / script).read_text(encoding="utf-8")
    assert any(f"{name}(" in source for name in ("say_where", "say_next", "publish_task_model"))
