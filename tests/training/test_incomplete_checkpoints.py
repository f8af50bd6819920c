"""What a run that was killed, or that met a full disk, leaves behind: the same command goes on, or begins again."""

import errno
import json
import logging
import re

import pytest
import torch
from safetensors.torch import save_file

from utils.core.errors import AT_END, InputError, Interrupted, run_script
from utils.core.files import check_output_dir
from utils.training.arguments import AlignTrainingArguments
from utils.training.checkpoints import checkpoint_to_resume
from utils.training.whole_checkpoints import RUN_FILE, is_whole, step_checkpoints, whole_checkpoints


# The files of a checkpoint, in the order in which they are written.
FILES = (
    "config.json",
    "model.safetensors",
    RUN_FILE,
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
)
NEEDED = FILES[1:]
SWITCHES = [(None, False), (None, True), ("false", False), ("true", False), ("true", True)]


@pytest.fixture(autouse=True)
def _unlocked():
    yield
    AT_END.close()


def write(folder, files=FILES, cut=""):
    """A checkpoint of some of its files, one of which lacks its end."""
    folder.mkdir(parents=True)
    for name in files:
        path = folder / name
        if path.suffix == ".json":
            path.write_text(json.dumps({"run": {}, "global_step": 2}))
        elif path.suffix == ".safetensors":
            save_file({"weight": torch.ones(8)}, path)
        else:
            torch.save({"state": torch.ones(8)}, path)
        if name == cut:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return folder


def resume(folder, how, overwrite=False):
    args = AlignTrainingArguments(output_dir=str(folder), resume_from_checkpoint=how, use_cpu=True)
    return checkpoint_to_resume(args, overwrite)


def warned(caplog) -> list[str]:
    return [
        record.message for record in caplog.records if record.levelno == logging.WARNING and record.name[:5] == "utils"
    ]


MOMENTS = [
    *((FILES[:number], "") for number in range(len(FILES))),
    *((FILES[: number + 1], FILES[number]) for number in range(1, len(FILES))),
    *(([name for name in FILES if name != one], "") for one in NEEDED if one != RUN_FILE),
    *((FILES, one) for one in NEEDED),  # (power was lost)
]


@pytest.mark.parametrize(("files", "cut"), MOMENTS)
def test_an_incomplete_checkpoint_is_passed_over(tmp_path, caplog, files, cut):
    """Whenever the run was killed: it begins again if there is no complete one, and else goes on from that."""
    for number, (how, overwrite) in enumerate(SWITCHES):
        folder = tmp_path / str(number)
        last = write(folder / "checkpoint-10", files, cut)
        assert not is_whole(last)
        caplog.clear()
        assert resume(folder, how, overwrite) is None
        assert [str(last) in message for message in warned(caplog)] == [True]
        AT_END.close()
        before = write(folder / "checkpoint-9")
        caplog.clear()
        if how == "true":
            assert resume(folder, how, overwrite) == str(before)
            assert [str(last) in message for message in warned(caplog)] == [True]
        elif overwrite:
            assert resume(folder, how, overwrite) is None
        else:
            with pytest.raises(InputError):
                resume(folder, how, overwrite)
        assert {file.name for file in last.iterdir()} == set(files)
        AT_END.close()


def test_nothing_is_said_of_complete_ones(tmp_path, caplog):
    for step in (2, 10):
        write(tmp_path / f"checkpoint-{step}")
    assert resume(tmp_path, "true") == str(tmp_path / "checkpoint-10")
    assert not warned(caplog)


@pytest.mark.parametrize("how", ["true", "True", True])
def test_a_run_that_has_saved_nothing_begins_again(tmp_path, caplog, how):
    """The command that a scheduler repeats has --resume_from_checkpoint true from the first time on."""
    assert resume(tmp_path / "new", how) is None
    assert [str(tmp_path / "new") in message for message in warned(caplog)] == [True]


def test_other_results_are_not_written_over(tmp_path):
    write(tmp_path / "checkpoint-2", FILES[:3])
    (tmp_path / "model.safetensors").write_bytes(b"good")
    for how in (None, "true"):
        with pytest.raises(InputError, match=r"model\.safetensors"):
            resume(tmp_path, how)
    assert resume(tmp_path, "true", overwrite=True) is None


def test_what_a_killed_process_was_writing_is_no_result(tmp_path):
    (tmp_path / ".writing-abc").mkdir()
    (tmp_path / ".run.json.123").write_text("{")
    check_output_dir(tmp_path)


def test_a_finished_run_is_not_to_be_resumed(tmp_path):
    write(tmp_path / "checkpoint-2")
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match="holds a finished run.*--overwrite_output_dir") as refused:
        resume(tmp_path, None)
    assert "resume" not in str(refused.value)


@pytest.mark.parametrize(
    "name", ["checkpoint-best", "checkpoint-", "checkpoint-6-old", "checkpoint--6", "checkpoint-²"]
)
def test_other_folders_are_no_checkpoints_of_a_run(tmp_path, name):
    write(tmp_path / name)
    (tmp_path / "checkpoint-7").write_text("a file")
    for step in (10, 9):
        write(tmp_path / f"checkpoint-{step}", FILES[: step - 5])
    assert [folder.name for folder in step_checkpoints(tmp_path)] == ["checkpoint-10", "checkpoint-9"]
    assert whole_checkpoints(tmp_path) == []
    with pytest.raises(InputError):
        resume(tmp_path, None)


def test_a_message_names_what_works(tmp_path):
    """Whatever a message says to add lets the same command go on."""
    checkpoint = write(tmp_path / "checkpoint-2")
    with pytest.raises(InputError) as refused:
        resume(tmp_path, None)
    ways = re.findall(r"--(\w+)(?: (true))?", str(refused.value))
    assert {("resume_from_checkpoint", "true"), ("overwrite_output_dir", "")} <= set(ways)
    assert resume(tmp_path, "true") == str(checkpoint)
    assert resume(tmp_path, None, overwrite=True) is None


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), Interrupted(15, 1, 2)])
def test_messages_at_the_end_of_a_run_name_a_whole_argument(error, capsys):
    """`--resume_from_checkpoint` alone cannot be read."""

    def main():
        raise error

    with pytest.raises(SystemExit) as ending:
        run_script(main)
    said = f"{ending.value.code} {capsys.readouterr().err}"
    assert re.findall(r"--resume_from_checkpoint( true\b)?", said) == [" true"]
