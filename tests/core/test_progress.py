"""Bars on a terminal, lines in a file: of this project and of the libraries that it uses."""

import io
import sys

import datasets.utils
import huggingface_hub.utils
import pytest
import tqdm.auto
import transformers.utils.logging
from datasets import Dataset
from tqdm import tqdm as original

from utils.core import progress as module
from utils.core.progress import DRAWING, lines_unless_terminal, progress, time_left


# Of every library that shows progress.
BARS = {
    "this project": lambda **options: progress(description=options.pop("desc"), **options),
    "tqdm": tqdm.auto.tqdm,
    "transformers": transformers.utils.logging.tqdm,
    "datasets": datasets.utils.tqdm,
    "huggingface_hub": lambda **options: huggingface_hub.utils.tqdm(disable=None, **options),
}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test says so."""
    now = [1000.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    monkeypatch.setattr(module, "_clock", {"begin": 1000.0, "next": 0.0})
    return now


@pytest.fixture
def written(monkeypatch, capsys):
    """What has gone to standard error, which is a file there, with bars that write lines."""
    for name in DRAWING:  # (restored after the test)
        monkeypatch.setattr(original, name, original.__dict__[name])
    monkeypatch.setattr(sys.modules["datasets.utils.tqdm"], "_hf_datasets_progress_bars_disabled", False)
    monkeypatch.setattr(sys.modules["huggingface_hub.utils.tqdm"], "HF_HUB_DISABLE_PROGRESS_BARS", None)
    monkeypatch.setattr(sys.modules["huggingface_hub.utils.tqdm"], "progress_bar_states", {})
    monkeypatch.setattr(transformers.utils.logging, "_tqdm_active", True)
    lines_unless_terminal()
    return lambda: capsys.readouterr().err


@pytest.mark.parametrize("library", BARS)
def test_a_line_when_it_is_due_and_one_at_the_end(library, written, clock):
    bar = BARS[library](total=1000, desc="Counting", mininterval=0, miniters=1)
    for _ in range(1000):
        clock[0] += 0.1
        bar.update(1)
    bar.close()
    text = written()
    assert "\r" not in text
    lines = text.splitlines()
    # After 5 s, after 30 s more each time, and at the end.
    assert [line[: line.index("(")] for line in lines[:-1]] == [f"Counting: {n} % " for n in (5, 35, 65, 95)]
    assert lines[-1].startswith("Counting: 1,000 in ")
    assert lines[-1].endswith("done")


def test_short_steps_write_nothing(written, clock):
    for _ in progress(range(1000), "Short", mininterval=0, miniters=1):
        clock[0] += 0.004
    assert written() == ""


def test_hours_write_fewer_lines_than_minutes(written, clock):
    for _ in progress(range(100_000), "Long", mininterval=0, miniters=1):
        clock[0] += 1
    assert 60 < len(written().splitlines()) < 150


def test_inner_bars_share_the_lines_of_the_outer_one(written, clock):
    for _ in progress(range(50), "Outer", mininterval=0, miniters=1):
        for _ in progress(range(20), "Inner", mininterval=0, miniters=1):
            clock[0] += 1
    lines = written().splitlines()
    assert len(lines) < 35
    assert {line.split(":")[0] for line in lines} == {"Outer", "Inner"}
    assert lines[-1].startswith("Outer: 50 in ")


def test_an_unknown_total_and_a_step_that_ends_early(written, clock):
    bar = progress(description="Reading", unit="rows", mininterval=0, miniters=1)
    clock[0] += 6
    bar.update(1500)
    bar.close()
    early = progress(description="Copying", total=4_000_000, unit="B", unit_scale=True, mininterval=0, miniters=1)
    clock[0] += 40
    early.update(1_000_000)
    early.close()
    reading, read, copying, copied = written().splitlines()
    assert reading.startswith("Reading: 1,500 rows in ")
    assert reading.endswith("so far")
    assert read.endswith("done")
    assert copying.startswith("Copying: 25 % (1.00M of 4.00M B) in ")
    assert not copied.endswith("done")


def test_what_is_written_between_keeps_its_line(written, clock):
    bar = progress(description="Training", total=10, mininterval=0, miniters=1)
    clock[0] += 6
    bar.update(1)
    bar.write("a log", file=sys.stderr)
    bar.close()
    assert written().splitlines()[1] == "a log"


def test_data_sets_that_are_mapped(written, clock):
    def wait(row):
        clock[0] += 1
        return row

    Dataset.from_dict({"n": list(range(50))}).map(wait, batched=True, batch_size=2, desc="Mapping")
    text = written()
    assert "\r" not in text
    assert text.startswith("Mapping: ")


def test_a_terminal_keeps_its_bars(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    for name, method in DRAWING.items():  # (another test of this process may have run a script)
        monkeypatch.setattr(original, name, method)
    lines_unless_terminal()
    assert {name: getattr(original, name) for name in DRAWING} == DRAWING
    for _ in progress(range(3), "Drawn", delay=0):
        pass
    assert "\r" in sys.stderr.getvalue()
    assert "Drawn: 100%" in sys.stderr.getvalue()


def test_other_processes_are_silent(written, monkeypatch, clock):
    monkeypatch.setenv("RANK", "1")
    for library in BARS.values():
        bar = library(total=10, desc="Counting", mininterval=0, miniters=1)
        clock[0] += 100
        bar.update(5)
        bar.close()
    assert written() == ""


def test_the_time_that_is_left(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    bar = progress(description="Resumed", total=100, initial=50)
    assert time_left(bar) == "?"
    bar.start_t -= 10
    bar.n = 60  # 10 in 10 s
    assert time_left(bar) == "00:40"
    bar.close()
