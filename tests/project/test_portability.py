"""What would fail on Windows or macOS only, or where the locale is not UTF-8: found in the source."""

import ast
import pickle
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from helpers.pairs import COLLATOR, WORD_TOKENIZER
from helpers.paths import PROJECT
from utils.alignment.pairs import PairEncoder
from utils.tasks.tagging import encode_tagged


FILES = sorted(
    path
    for folder in ("*.py", "utils/**/*.py", "data/**/*.py", "grids/**/*.py", "benchmarks/**/*.py", "docs/**/*.py")
    for path in PROJECT.glob(folder)
)
# What Python has on Unix only (its documentation says "Availability: Unix").
UNIX_MODULES = {
    "crypt",
    "curses",
    "fcntl",
    "grp",
    "posix",
    "pty",
    "pwd",
    "readline",
    "resource",
    "syslog",
    "termios",
    "tty",
}
UNIX_ATTRIBUTES = {
    "os": {"fork", "forkpty", "getpgid", "geteuid", "getgid", "getuid", "getloadavg", "killpg", "mkfifo", "mknod", "nice", "openpty",
           "sched_getaffinity", "sched_setaffinity", "setsid", "sync", "sysconf", "uname", "wait"},
    "signal": {"SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP", "SIGTSTP", "SIGUSR1", "SIGUSR2",
               "alarm", "pause", "pthread_kill", "setitimer"},
    "time": {"tzset"},
}  # fmt: skip
OPENERS = ("open", "read_text", "write_text", "TextIOWrapper", "fdopen", "NamedTemporaryFile", "TemporaryFile")
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PROJECT).as_posix())


def calls(path: Path) -> Iterator[tuple[ast.Call, str, str]]:
    """Every call with the name that is called, and what the name is an attribute of."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Attribute):
                yield node, called.attr, ast.unparse(called.value)
            elif isinstance(called, ast.Name):
                yield node, called.id, ""


def texts_without_encoding(path: Path) -> list[str]:
    """Calls that open a text without naming its encoding, or write one without naming its line ends."""
    found = []
    for call, name, of in calls(path):
        named = {word.arg for word in call.keywords}  # (None: `**options`)
        if of == "subprocess" and named & {"text", "universal_newlines"} and "encoding" not in named:
            found.append(ast.unparse(call))
        if name not in OPENERS or None in named or (name in ("read_text", "write_text") and not of):
            continue
        mode = next(
            (word.value for word in call.keywords if word.arg == "mode"), call.args[1] if call.args[1:] else None
        )
        if name == "open" and of and of not in ("gzip", "bz2", "lzma", "io", "codecs"):
            mode = call.args[0] if call.args else mode  # Path.open, or that of an archive
        mode = ast.literal_eval(mode) if isinstance(mode, ast.Constant) else ""
        binary = "b" in str(mode) or (name == "open" and ("zip" in of.lower() or of in ("gzip", "bz2", "lzma")))
        binary = binary or (name.endswith("TemporaryFile") and "mode" not in named)
        positional = name == "TextIOWrapper" and len(call.args) > 1
        if not binary and "encoding" not in named and not positional:
            found.append(ast.unparse(call))
        writes = name == "write_text" or (name == "open" and set(str(mode)) & set("wax"))
        if writes and not binary and "newline" not in named:
            found.append(ast.unparse(call))
    return found


def unix_only(path: Path) -> list[str]:
    """Modules and attributes that Windows lacks, where nothing beside them asks whether they are there."""
    source, found = path.read_text(encoding="utf-8"), []
    for block in _blocks(ast.parse(source)):
        text = ast.unparse(block)
        asked = bool(re.search(r"hasattr\((os|signal)|except ImportError", text))
        for node in ast.walk(block):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            used = [name for name in names if name.partition(".")[0] in UNIX_MODULES]
            if isinstance(node, ast.Attribute) and node.attr in UNIX_ATTRIBUTES.get(ast.unparse(node.value), ()):
                used.append(ast.unparse(node))
            found += [] if asked else used
    return found


def _blocks(tree: ast.Module) -> Iterator[ast.stmt]:
    """Functions, wherever they are, and all other statements of a module and of its classes."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield from node.body
        else:
            yield node


@each_file
def test_texts_have_an_encoding_and_line_ends(path):
    assert not texts_without_encoding(path)


@each_file
def test_nothing_is_taken_for_granted_that_only_unix_has(path):
    assert not unix_only(path)


@each_file
def test_names_of_files_can_be_those_of_windows(path):
    """No text that is joined to a path has a character that Windows forbids."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            for part in ast.walk(node.right) if isinstance(node.right, ast.JoinedStr) else [node.right]:
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    assert not set(part.value) & set('<>:"\\|?*'), ast.unparse(node)


@pytest.mark.parametrize(
    "line",
    ["open('a')", "open('a', 'w')", "open('a', 'w', encoding='utf-8')", "Path('a').read_text()", "Path('a').open()",
     "Path('a').write_text('x', encoding='utf-8')", "subprocess.run(['git'], text=True)", "io.TextIOWrapper(file)"],
)  # fmt: skip
def test_the_search_finds_texts(line, tmp_path):
    (tmp_path / "a.py").write_text(line, encoding="utf-8")
    assert texts_without_encoding(tmp_path / "a.py")


@pytest.mark.parametrize(
    "line", ["open('a', 'rb')", "open('a', encoding='utf-8')", "gzip.open(path)", "write_text(path, text)",
             "Path('a').open('rb')", "subprocess.run(['git'], encoding='utf-8')", "open('a', 'w', encoding='utf-8', newline='')"]
)  # fmt: skip
def test_the_search_passes_the_others(line, tmp_path):
    (tmp_path / "a.py").write_text(line, encoding="utf-8")
    assert not texts_without_encoding(tmp_path / "a.py")


@pytest.mark.parametrize(
    ("code", "found"),
    [("import fcntl", 1), ("from resource import getrusage", 1), ("def f():\n    os.killpg(1, signal.SIGKILL)", 2),
     ("def f():\n    if hasattr(os, 'killpg'):\n        os.killpg(1, 9)", 0), ("os.getpid()", 0),
     ("try:\n    import resource\nexcept ImportError:\n    resource = None", 0)],
)  # fmt: skip
def test_the_search_finds_what_only_unix_has(code, found, tmp_path):
    (tmp_path / "a.py").write_text(code, encoding="utf-8")
    assert len(unix_only(tmp_path / "a.py")) == found


@pytest.mark.parametrize(
    "given",
    [COLLATOR, WORD_TOKENIZER, PairEncoder(WORD_TOKENIZER, True),
     partial(encode_tagged, column="ner_tags", word_tokenizer=WORD_TOKENIZER, label2id={"O": 0})],
    ids=lambda given: type(given).__name__,
)  # fmt: skip
def test_what_other_processes_get_can_be_sent_to_them(given):
    """Where processes are spawned, not forked (Windows, macOS): collators to those that load data, encoders to those that map."""
    assert type(pickle.loads(pickle.dumps(given))) is type(given)
