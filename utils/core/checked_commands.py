"""Whether scripts can read command lines, found out before any of them is run.

`python -m utils.core.checked_commands` is the process that reads them: the scripts import torch, and the arguments of Trainer change
the environment.
"""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence

from utils.core.errors import InputError
from utils.core.kept_help import CODE


# The environment variable with which a script ends when it has read its arguments.
ONLY_READ = "ONLY_READ_ARGUMENTS"


class ArgumentsRead(Exception):
    """A script has read its arguments, and was to do no more."""


def refusals(commands: Sequence[Sequence[str]]) -> list[str | None]:
    """What a script says of its arguments, for each command (the path of the script, and its arguments); None if it takes them."""
    path = os.pathsep.join(filter(None, [str(CODE), os.environ.get("PYTHONPATH")]))
    ended = subprocess.run(
        [sys.executable, "-m", "utils.core.checked_commands"],
        input=json.dumps(commands),
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", ONLY_READ: "1"},
    )
    if ended.returncode:
        raise RuntimeError(ended.stderr)
    return json.loads(ended.stdout.splitlines()[-1])


def _refusal(command: Sequence[str]) -> str | None:
    sys.argv = list(command)
    try:
        runpy.run_path(command[0], run_name="checked")["main"]()
    except InputError as error:
        return str(error)
    except ArgumentsRead:
        return None
    raise RuntimeError(f"{command[0]} reads no arguments")


def _main() -> None:
    print(json.dumps([_refusal(command) for command in json.load(sys.stdin)]))


if __name__ == "__main__":
    from utils.core import (
        checked_commands,
    )  # (the module that the scripts know, not this one, which is called __main__)

    checked_commands._main()
