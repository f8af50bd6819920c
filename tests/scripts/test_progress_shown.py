"""What a user sees of the progress of scripts, on a terminal and in a log file."""

import os
import re
import struct
from pathlib import Path
from threading import Thread

import pytest

from helpers.paths import DATA, PROJECT
from helpers.processes import ScriptProcess


# A script with what makes it show most of its steps.
QUICK = ("--use_cpu", "--per_device_train_batch_size", "4", "--report_to", "none", "--save_strategy", "no")
SCRIPTS = {
    "run_align": ("--language", "hi", "--num_train_epochs", "20", "--logging_steps", "30", "--do_train", "--do_eval",
                  "--validation_split_percentage", "25", *QUICK),
    "run_ner": ("--dataset_name", DATA / "ner", "--eval_languages", "en", "hi", "--max_steps", "30", "--do_train", "--do_eval",
                *QUICK),
    "run_xsr": ("--dataset_name", DATA / "xsr", "--eval_languages", "hi", "--layers", "all", "--use_cpu"),
}  # fmt: skip


def words_of(script: str, model: str, bitext: Path, output: Path) -> list[object]:
    pairs = ["--parallel_file", bitext] if script == "run_align" else []
    return [PROJECT / f"{script}.py", "--model", model, *SCRIPTS[script], *pairs, "--output_dir", output]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_log_file_has_lines_and_not_many(script, tmp_path, model, bitext):
    environment = {"HF_DATASETS_CACHE": str(tmp_path / "cache"), "HF_HUB_DISABLE_PROGRESS_BARS": "0"}
    process = ScriptProcess(words_of(script, model, bitext, tmp_path / "out"), tmp_path / "log", environment)
    assert process.wait() == 0, process.text
    raw = (tmp_path / "log").read_bytes()
    assert b"\r" not in raw
    assert b"\x1b" not in raw
    assert len(raw.splitlines()) < 60
    if script == "run_align":
        assert b"'step': '30/" in raw
        assert b"'left': '" in raw


def test_a_terminal_has_bars(tmp_path, model, bitext):
    fcntl, termios = (pytest.importorskip(name) for name in ("fcntl", "termios"))  # not on Windows
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    shown = bytearray()

    def read() -> None:
        while part := os.read(leader, 4096):
            shown.extend(part)

    reader = Thread(target=read, daemon=True)
    reader.start()
    environment = {"HF_DATASETS_CACHE": str(tmp_path / "cache")}
    words = words_of("run_align", model, bitext, tmp_path / "out")
    process = ScriptProcess(words, Path(os.ttyname(follower)), environment)
    assert process.wait() == 0, shown.decode(errors="replace")
    text = shown.decode()
    for bar in ("Linking words (encoder)", "Training"):
        assert re.search(rf"\r{re.escape(bar)}: +\d+%\|", text), text
    assert "{'step': '30/" in text
