"""How a script ends."""

import errno
import logging
import sys

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from utils.core import redaction
from utils.core.errors import InputError, first_line, run_script
from utils.core.redaction import redact


def raising(error: Exception, cause: Exception | None = None):
    def main():
        raise error from cause

    return main


def test_bad_input_is_one_line():
    with pytest.raises(SystemExit, match="^error: The file x is empty; give another.$"):
        run_script(raising(InputError("The file x is empty; give another.")))


@pytest.mark.parametrize("cause", [None, OSError(errno.ENOSPC, "No space left on device")])
def test_a_full_disk_is_one_line_whoever_reports_it(cause):
    error = (
        RuntimeError("unexpected pos 40896 vs 40784") if cause else OSError(errno.ENOSPC, "No space left on device")
    )
    with pytest.raises(SystemExit, match="no space left on the disk; make room"):
        run_script(raising(error, cause))


@pytest.mark.parametrize(
    "message", ["a\nb\tc  d", "x" * 5000, " ".join(["word"] * 400), "The file " + "y/" * 400 + " is empty; give another.",
                "\x1b[31mred\u202e", "\ud800", "tok" * 10**6]
)  # fmt: skip
def test_a_message_is_one_short_line(message):
    text = str(InputError(message))
    assert len(f"error: {text}") <= 300
    assert text.isprintable()
    assert "\n" not in text


@pytest.mark.parametrize(
    ("message", "line"),
    [("", "ValueError"), ("\n", "ValueError"), ("\n a\nb", "a"), ("a\r\nb", "a"), ("\x1c", "ValueError")],
)
def test_the_first_line_of_an_error(message, line):
    assert first_line(ValueError(message)) == line


def test_the_rest_of_a_sentence_is_kept_when_a_long_word_is_shortened():
    text = str(InputError(f"The file {'y/' * 400} is empty; give another."))
    assert text.startswith("The file y/y/")
    assert text.endswith("/y/ is empty; give another.")


def test_messages_logs_and_tracebacks_have_no_secrets(monkeypatch, capsys, caplog):
    """Whoever quotes them: here a server that repeats the header, and a fault of the program."""
    monkeypatch.setenv("SOME_API_KEY", "q1w2e3r4")
    monkeypatch.setattr(redaction, "_known", set())
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    factory = logging.getLogRecordFactory()
    try:
        with pytest.raises(SystemExit) as ending:
            run_script(lambda: raising(InputError("403: you sent x-other: q1w2e3r4"))())
        logging.getLogger("somebody").warning("sent %s", "q1w2e3r4")
        sys.excepthook(KeyError, KeyError("q1w2e3r4"), None)
    finally:
        logging.setLogRecordFactory(factory)
    assert "403" in ending.value.code
    assert "sent <secret>" in caplog.text
    assert "KeyError" in (shown := capsys.readouterr().err)
    assert "q1w2e3r4" not in ending.value.code + caplog.text + shown


def test_ordinary_variables_are_not_secrets(monkeypatch, tmp_path):
    monkeypatch.setattr(redaction, "_known", set())
    for name, value in {
        "TOKEN_REFRESH": "disabled",
        "SSH_AUTH_SOCK": str(tmp_path),
        "USE_AUTH": "1",
        "A_KEY": "true",
    }.items():
        monkeypatch.setenv(name, value)
    run_script(lambda: None)
    assert redact(f"disabled {tmp_path} 1 true") == f"disabled {tmp_path} 1 true"


def unusable(kind: str, folder):
    """Do something with a path that cannot be used."""
    (folder / "file").write_text("")
    (folder / "loop").symlink_to(folder / "loop")
    return {
        "below a file": lambda: (folder / "file" / "x").mkdir(),
        "loop": lambda: (folder / "loop").read_text(),
        "folder": lambda: folder.read_text(),
        "missing": lambda: (folder / "none").read_text(),
        "long": lambda: (folder / ("x" * 300)).write_text(""),
    }[kind]


@pytest.mark.parametrize("kind", ["below a file", "loop", "folder", "missing", "long"])
def test_a_path_that_cannot_be_used_is_one_line(kind, tmp_path):
    with pytest.raises(SystemExit, match="^error: .*cannot be read or written"):
        run_script(unusable(kind, tmp_path))


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (raising(RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")), "space"),
        (raising(RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")), "space"),
        (raising(SafetensorError("I/O error: No space left on device (os error 28)")), "space"),
        (raising(SafetensorError("Error while serializing: I/O error: File too large (os error 27)")), "limit"),
        (raising(OSError(errno.EDQUOT, "Disk quota exceeded")), "space"),
        (lambda: torch.zeros(10**15), "memory"),
        (lambda: np.zeros(10**15), "memory"),
        (raising(RuntimeError("DataLoader worker (pid(s) 12) exited unexpectedly")), "worker"),
        (raising(RuntimeError("One of the subprocesses has abruptly died during map operation.")), "worker"),
        (raising(RuntimeError("x"), MemoryError()), "memory"),
    ],
)
def test_what_is_wrong_with_the_machine_is_one_line(make, word):
    with pytest.raises(SystemExit, match=f"^error: .*{word}"):
        run_script(make)


def test_an_error_while_another_is_handled_is_a_fault_of_the_program():
    def main():
        try:
            open("/no/such/file")  # noqa: SIM115
        except OSError:
            raise KeyError("x")  # noqa: B904

    with pytest.raises(KeyError):
        run_script(main)


def test_faults_of_the_program_keep_their_traceback():
    with pytest.raises(KeyError):
        run_script(raising(KeyError("x")))
