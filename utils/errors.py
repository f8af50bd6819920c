"""How a script runs, and ends: on bad input with one sentence, not with a traceback."""

import errno
import logging
import os
import sys
from collections.abc import Callable


class InputError(ValueError):
    """What the user gave cannot be used. The message is one sentence: which file, which line, what to do."""


def run_script(main: Callable[[], object]) -> None:
    """Run a script's `main`; an `InputError`, or a full disk, is one line on standard error and ends it with status 1.

    Any other exception is a fault of the program and keeps its traceback. What our modules log is shown, by the first
    process of several.
    """
    logging.basicConfig(format="%(message)s")
    logging.getLogger("utils").setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR)
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        where = f" for {error.filename}" if error.filename else ""
        sys.exit(f"error: There is no space left on the disk{where}; make room, then run again or resume.")
