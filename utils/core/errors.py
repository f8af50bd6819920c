"""How a script ends: with one sentence on bad input, not with a traceback."""

import errno
import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import TypeVar


Entry = TypeVar("Entry")


class InputError(ValueError):
    """Bad input. The message is one sentence for the user: which file, which line, what to do."""


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


def run_script(main: Callable[[], object]) -> None:
    """Run a script's `main`; end with one line on standard error for bad input, a full disk and an interruption.

    Any other exception is a bug and keeps its traceback. Of several processes, the first one shows the messages of `utils`.
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
    """Whether a full disk is the cause of an error; libraries raise errors of their own for it."""
    while error is not None:
        texts = ("No space left on device", "inline_container.cc")  # the second is all that torch.save reports
        if getattr(error, "errno", None) == errno.ENOSPC or any(text in str(error) for text in texts):
            return True
        error = error.__cause__ or error.__context__
    return False
