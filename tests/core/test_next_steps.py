"""Commands that can be copied."""

import sys

from helpers.paths import PROJECT
from utils.core import next_steps
from utils.core.next_steps import as_typed, command, free_folder, same_command, say_where
from utils.tasks.registry import TASKS


def test_the_same_run_with_another_model(monkeypatch, tmp_path):
    monkeypatch.chdir(PROJECT)
    given = ["settings.yaml", "--model", "one", "--eval-languages", "en", "hi", "--token", "hf_secret", "--output_dir=out",
             "--push_to_hub", "--seed", "3"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["run_ner.py", *given])
    words = ["settings.yaml", "--eval-languages", "en", "hi", "--seed", "3", "--model", "two", "--output_dir", "other"]
    assert same_command("run_ner", "two", "other") == ["accelerate", "launch", "run_ner.py", *words]
    monkeypatch.chdir(tmp_path)
    assert command("run_xsr", "--layers", -1) == ["python", str(PROJECT / "run_xsr.py"), "--layers", "-1"]


def test_words_are_quoted_as_the_system_wants(monkeypatch):
    words = ["python", "run_xsr.py", "--model", "my models/it's", "--token", "hf_abcdefghijklmnopqrstuvwxyzabcdefgh"]
    monkeypatch.setattr(next_steps.os, "name", "posix")
    typed = as_typed(words)
    assert "'my models/it'\"'\"'s'" in typed
    assert "hf_abc" not in typed
    monkeypatch.setattr(next_steps.os, "name", "nt")
    assert '"my models/it\'s"' in as_typed(words)


def test_commands_write_into_free_folders(tmp_path):
    folder = tmp_path / "run"
    assert free_folder(folder) == str(folder)
    folder.mkdir()
    assert free_folder(folder) == str(folder)
    (folder / "run.json").write_text("{}")
    assert free_folder(folder) == f"{folder}-2"
    (tmp_path / "run-2").write_text("")
    assert free_folder(str(folder)) == f"{folder}-3"


def test_the_scripts_of_tasks_are_launched():
    assert set(next_steps._LAUNCHED) == {f"run_{task}" for task in TASKS}


def test_places(tmp_path, capsys):
    for name in ("model-00001.safetensors", "model-00002.safetensors", "run.json", "a.png", "b.png", "other.txt"):
        (tmp_path / name).write_text("", encoding="utf-8")
    (tmp_path / "predictions").mkdir()
    say_where(tmp_path)
    said = capsys.readouterr().out.strip()
    assert said == (
        f"In {tmp_path}: model: model-00001.safetensors model-00002.safetensors; predictions of every example: predictions; "
        "figures: a.png b.png; settings: run.json."
    )


def test_every_kind_of_content_is_said_once(tmp_path, capsys):
    for name in ("report.html", "report.md", "comparison.csv", "comparison.md", "grid.runs.jsonl.gz", "run.json"):
        (tmp_path / name).write_text("", encoding="utf-8")
    say_where(tmp_path)
    parts = capsys.readouterr().out.strip().removeprefix(f"In {tmp_path}: ").removesuffix(".").split("; ")
    kinds, files = zip(*(part.split(": ") for part in parts))
    assert len(set(kinds)) == len(kinds)
    assert sorted(" ".join(files).split()) == sorted(path.name for path in tmp_path.iterdir())
