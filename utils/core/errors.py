"""How a script ends: with one sentence on bad input, not with a traceback."""

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, TypeVar

from huggingface_hub import get_token

from utils.core.progress import is_first_process, lines_unless_terminal
from utils.core.redaction import note_secrets, redact
from utils.core.result_tables import shorten
from utils.core.streams import prepare_streams


Entry = TypeVar("Entry")
# Characters of the longest message; a word is shortened to the second number before the rest of the sentence is.
_LONGEST, _LONGEST_WORD = 290, 60


# What `run_script` undoes at the end of a script (locks).
AT_END = ExitStack()


class InputError(ValueError):
    """Bad input. The message is one sentence for the user: which file, which line, what to do.

    It is shown in one line of at most 300 characters, without secrets and control characters.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def look_up(registry: Mapping[str, Entry], name: str, what: str) -> Entry:
    """The entry of a registry; an unknown name raises an `InputError` that lists the known ones."""
    if name not in registry:
        raise InputError(f"{what} {name} is unknown; choose one of {', '.join(registry)}.")
    return registry[name]


class Interrupted(Exception):
    """A signal has stopped the training, and a checkpoint was saved."""

    def __init__(self, number: int, step: int, max_steps: int) -> None:
        super().__init__(
            f"Interrupted after step {step:,} of {max_steps:,}. Run the same command with --resume_from_checkpoint true "
            "to continue."
        )
        self.signal = number


def one_line(message: str) -> str:
    """A message in one line; if it is too long, its longest words are shortened, and then the message itself."""
    text = " ".join(redact(shorten(message, 100 * _LONGEST)).split())
    text = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
    for word in sorted(text.split(" "), key=len, reverse=True):
        if len(text) > _LONGEST:
            text = text.replace(word, shorten(word, _LONGEST_WORD), 1)
    return shorten(text, _LONGEST)


def shown(value: object) -> str:
    """What a message calls a value of a data file: null, true, 7, 'a text', a list, an object."""
    if isinstance(value, str):
        return f"'{value}'"
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    return "a list" if isinstance(value, list) else "an object" if isinstance(value, Mapping) else type(value).__name__


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def input_errors(problem: str, *kinds: type[Exception]) -> Iterator[None]:
    """Errors of these kinds that libraries raise within the context become `InputError`: the problem, then their text."""
    try:
        yield
    except InputError:
        raise
    except kinds as error:
        raise InputError(f"{problem}: {error}") from error


def run_script(main: Callable[[], object]) -> None:
    """Run a script's `main`; end with one line on standard error for bad input, an interruption, and what `_outside` lists.

    Any other exception is a bug and keeps its traceback. Of several processes, the first one shows the messages of `utils`.
    Secrets are taken out of all that is shown.
    """
    # (`SSH_AUTH_SOCK=/run/…` and `TOKEN_REFRESH=disabled` are not secret.)
    likely = {name: value for name, value in os.environ.items() if not (value.isalpha() or os.path.exists(value))}
    note_secrets({**likely, "token": get_token()})
    prepare_streams()
    lines_unless_terminal()
    logging.setLogRecordFactory(_redacted_record)
    sys.excepthook = _show_traceback
    logging.basicConfig(format="%(message)s")
    logging.getLogger("utils").setLevel(logging.INFO if is_first_process() else logging.ERROR)
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
    except Interrupted as interruption:
        print(interruption, file=sys.stderr)
        sys.exit(128 + interruption.signal)
    except Exception as error:
        sentence = _outside(error)
        if sentence is None:
            raise
        sys.exit(f"error: {one_line(sentence)}")
    finally:
        AT_END.close()


def _redacted_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    record = logging.LogRecord(*args, **kwargs)
    record.msg, record.args = redact(record.getMessage()), ()
    return record


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))


# What it means for the user when libraries say this, in errors of their own. (torch.save reports a full disk by the last three.)
_OUTSIDE = {
    "There is no space left on the disk; make room and run the same command again, a training with --resume_from_checkpoint true.": (
        "No space left on device", "Disk quota exceeded", "unexpected pos", "PytorchStreamWriter", "basic_ios::clear",
    ),
    "A file would be larger than the file system, or ulimit -f, allows; write into another folder, or raise the limit.": (
        "File too large",
    ),
    "A worker process was killed, perhaps for lack of memory; choose fewer workers or smaller batches.": (
        "DataLoader worker", "subprocesses has abruptly died", "BrokenProcessPool",
    ),
    "There is not enough memory; choose smaller batches, shorter inputs or fewer workers.": (
        "MemoryError", "OutOfMemoryError", "out of memory", "not enough memory", "allocate memory",
    ),
}  # fmt: skip


def _outside(error: BaseException | None) -> str | None:
    """What is wrong outside of this program, in a sentence: disk, memory, a killed process, a path that cannot be used."""
    path, certain = None, True
    while error is not None:
        said = f"{type(error).__name__}: {error}"
        for sentence, texts in _OUTSIDE.items():
            if any(text in said for text in texts):
                return sentence
        if certain and isinstance(error, OSError) and error.filename and error.strerror:
            path = (
                f"{error.filename} cannot be read or written ({error.strerror}); check the path and its permissions."
            )
        # An error may also occur while another one is handled, which then is not its cause.
        certain, error = error.__cause__ is not None, error.__cause__ or error.__context__
    return path
