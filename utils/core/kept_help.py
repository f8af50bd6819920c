"""The text of `--help` of a script, kept from the last time: to make it, all libraries are imported, which takes seconds.

`python -m utils.core.kept_help` keeps that of every script, as `make` does after the installation. Besides `streams`, only the
standard library is imported here.
"""

import hashlib
import io
import os
import runpy
import shutil
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path

from utils.core.streams import prepare_streams


# The folder of the scripts.
CODE = Path(__file__).resolve().parent.parent.parent
FOLDER = CODE / ".cache" / "help"


def show_kept_help(script: str) -> None:
    """End a script after printing its help if it was asked for that alone, and the kept text is that of this code.

    To be called by a script before it imports anything else. `script` is its `__file__`.
    """
    if sys.argv[1:] not in (["--help"], ["-h"]):
        return
    try:
        key, _, text = _path(script).read_text(encoding="utf-8").partition("\n")
    except OSError:
        return
    if key == help_key():
        prepare_streams()
        sys.stdout.write(text)
        sys.exit()


def keep_help(text: str) -> None:
    """Keep the help of the script that is running; of other programs, or where it cannot be written, nothing is kept."""
    script = Path(sys.argv[0]).absolute()
    if script.parent != CODE or script.suffix != ".py":
        return
    from utils.core.files import write_text

    with suppress(OSError):
        write_text(_path(str(script)), f"{help_key()}\n{text}")


def keep_all() -> None:
    """Keep the help of every script, for a terminal like this one: in one process, which imports the libraries once."""
    silent = io.StringIO()
    silent.isatty = sys.stdout.isatty  # type: ignore[method-assign]  # (the key depends on it)
    for script in sorted(CODE.glob("*.py")):
        if f"{show_kept_help.__name__}(__file__)" in script.read_text(encoding="utf-8"):
            sys.argv = [str(script), "--help"]
            with redirect_stdout(silent), suppress(SystemExit):
                runpy.run_path(str(script), run_name="__main__")


def help_key() -> str:
    """A hash of all that a help text depends on: this code, the installed packages, Python and the terminal."""
    files = sorted([*CODE.glob("*.py"), *CODE.joinpath("utils").rglob("*.py")])
    packages = sorted(path.name for place in sys.path for path in Path(place).glob("*.dist-info"))
    colors = [os.environ.get(name) for name in ("TERM", "NO_COLOR", "FORCE_COLOR", "PYTHON_COLORS")]
    digest = hashlib.sha256(repr([sys.version, sys.stdout.isatty(), colors, packages, files]).encode())
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _path(script: str) -> Path:
    return FOLDER / f"{Path(script).stem}-{shutil.get_terminal_size().columns}.txt"


if __name__ == "__main__":
    keep_all()
