"""What scripts print to, on every system. Only the standard library is imported here."""

import io
import sys
from contextlib import suppress


def prepare_streams() -> None:
    """Let every console and file take what scripts print: what its encoding lacks (Hindi in cp1252, → in ASCII) is written as
    `\\u0939`. Lines of standard output and of standard error stay in their order."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with suppress(OSError):  # (its file was exchanged)
                stream.reconfigure(errors="backslashreplace", line_buffering=True)
