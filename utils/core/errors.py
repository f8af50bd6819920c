"""How a script runs, and how it ends: on bad input with one sentence, not with a traceback."""

import errno
import logging
import os
import sys
from collections.abc import Callable


class InputError(ValueError):
    """What the user gave cannot be used. The message is one sentence: which file, which line, what to do."""


class Interrupted(Exception):
    """A signal has stopped the training after a checkpoint was saved.

    Attributes:
        signal: its number.
    """

    def __init__(self, number: int, step: int, max_steps: int) -> None:
        super().__init__(
            f"Interrupted after step {step:,} of {max_steps:,}. The same command with --resume_from_checkpoint true goes on."
        )
        self.signal = number


def run_script(main: Callable[[], object]) -> None:
    """Run a script's `main`; an `InputError`, or a full disk, is one line on standard error and ends it with status 1.

    An interruption says how to go on, with the status that shells give a signal. Any other exception is a fault of the program and keeps its traceback. What our modules log is shown, by the first
    process of several.
    """
    logging.basicConfig(format="%(message)s")
    logging.getLogger("utils").setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR)
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
    except Interrupted as interruption:
        print(interruption, file=sys.stderr)
        sys.exit(128 + interruption.signal)
    except Exception as error:
        if not _disk_is_full(error):
            raise
        sys.exit("error: There is no space left on the disk; make room, then run again or --resume_from_checkpoint.")


def _disk_is_full(error: BaseException | None) -> bool:
    """Whether an error goes back to a full disk, for which libraries have errors of their own."""
    while error is not None:
        said = ("No space left on device", "inline_container.cc")  # the second is all that torch.save says
        if getattr(error, "errno", None) == errno.ENOSPC or any(words in str(error) for words in said):
            return True
        error = error.__cause__ or error.__context__
    return False
