"""Files are written whole, and JSON is valid whatever is in it."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.paths import PROJECT
from utils.core.errors import AT_END, InputError, run_script
from utils.core.files import (
    RESULTS,
    check_output_dir,
    is_locked,
    lock_folder,
    set_aside,
    write_json,
    write_json_lines,
    write_text,
)
from utils.training.arguments import AlignTrainingArguments
from utils.training.checkpoints import checkpoint_to_resume


def strict(text: str):
    def refuse(token):
        raise ValueError(token)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(
    ("value", "read"),
    [(math.nan, None), (math.inf, None), (-math.inf, None), (np.float32("nan"), None), (np.float32(0.5), 0.5),
     (np.int64(3), 3), (np.bool_(True), True), (0.1, 0.1), ("नदी", "नदी"), (True, True), (None, None)],
)  # fmt: skip
@pytest.mark.parametrize("nest", [lambda v: v, lambda v: [v, (v,)], lambda v: {"a": {"b": [v]}}])
def test_json_is_valid(tmp_path, value, read, nest):
    write_json(tmp_path / "a.json", {"x": nest(value)})
    write_json_lines(tmp_path / "a.jsonl", [{"x": nest(value)}] * 2)
    expected = {"x": json.loads(json.dumps(nest(read)))}
    assert strict((tmp_path / "a.json").read_text("utf-8")) == expected
    assert [strict(line) for line in (tmp_path / "a.jsonl").read_text("utf-8").splitlines()] == [expected] * 2


def test_half_a_surrogate_pair_is_written_as_json_does(tmp_path):
    write_json(tmp_path / "a.json", {"x": "\ud800"})
    assert strict((tmp_path / "a.json").read_text("utf-8")) == {"x": "\ud800"}


def test_what_was_there_stays_if_writing_fails(tmp_path):
    write_text(tmp_path / "a", "good")
    with pytest.raises(TypeError):
        write_text(tmp_path / "a", None)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "good"


# --- Output folders ---


@pytest.fixture
def held(tmp_path):
    """A folder that another process has locked, and that process."""
    code = "import sys, time; from pathlib import Path; from utils.core.files import check_output_dir as check\n"
    code += "check(Path(sys.argv[1])); print('locked', flush=True); time.sleep(300)"
    other = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "out"], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "locked\n"
    yield tmp_path / "out", other
    other.kill()
    other.wait()


def test_two_runs_in_one_folder_are_refused_until_one_has_died(held):
    folder, other = held
    for overwrite in (False, True):
        with pytest.raises(InputError, match="Another process writes into"):
            check_output_dir(folder, overwrite)
    args = AlignTrainingArguments(output_dir=str(folder), resume_from_checkpoint="true")
    (folder / "checkpoint-1").mkdir()
    with pytest.raises(InputError):
        checkpoint_to_resume(args, True)
    other.kill()
    other.wait()
    check_output_dir(folder, overwrite=True)
    check_output_dir(folder, overwrite=True)
    AT_END.close()


def test_a_lock_is_seen_without_taking_it(held, tmp_path):
    folder, other = held
    assert is_locked(folder)
    other.kill()
    other.wait()
    assert not is_locked(folder)
    assert not is_locked(tmp_path / "not there")
    lock_folder(folder)
    AT_END.close()


def test_a_lock_is_released_where_open_files_cannot_be_removed(tmp_path, monkeypatch):
    """As on Windows, where `filelock` removes the file after closing it."""

    def refuse(path, missing_ok=False):
        raise PermissionError(13, "The process cannot access the file", str(path))

    check_output_dir(tmp_path / "out")
    with monkeypatch.context() as windows:
        windows.setattr(Path, "unlink", refuse)
        AT_END.close()
    assert not is_locked(tmp_path / "out")


def test_the_second_process_of_a_run_does_not_lock(held, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    check_output_dir(held[0])


def test_a_script_that_ends_leaves_no_lock_and_no_empty_folder(tmp_path):
    (tmp_path / "mine").mkdir()

    def main(then):
        for name in ("new", "used", "mine"):
            check_output_dir(tmp_path / name)
        write_text(tmp_path / "used" / "a", "x")
        then()

    run_script(lambda: main(lambda: None))
    assert {path.name for path in tmp_path.rglob("*")} == {"used", "a", "mine"}
    with pytest.raises(SystemExit):
        run_script(lambda: check_output_dir(tmp_path / "used"))
    assert {path.name for path in tmp_path.rglob("*")} == {"used", "a", "mine"}


def places(folder: Path) -> dict[str, Path]:
    (folder / "file").write_text("")
    (folder / "loop").symlink_to(folder / "loop")
    return {"file": folder / "file", "below": folder / "file" / "out" / "x", "loop": folder / "loop",
            "inside a loop": folder / "loop" / "x", "long": folder / ("x" * 300)}  # fmt: skip


@pytest.mark.parametrize("place", ["file", "below", "loop", "inside a loop", "long"])
def test_places_that_cannot_be_written_are_refused_at_once(tmp_path, place):
    with pytest.raises(InputError, match="--output_dir"):
        check_output_dir(places(tmp_path)[place], overwrite=True)


def test_what_is_set_aside_is_numbered(tmp_path):
    for content in "abc":
        write_text(tmp_path / "run.json", content)
        set_aside(tmp_path, RESULTS)
    set_aside(tmp_path, RESULTS)
    assert [(tmp_path / f"_earlier-{k}" / "run.json").read_text() for k in (1, 2, 3)] == ["a", "b", "c"]
    assert len(list(tmp_path.iterdir())) == 3
