"""The commands in the README, in docs/ and in notebooks/, and at the top of scripts and settings files."""

import json
import re
import shlex
from itertools import takewhile
from pathlib import Path


MAGIC = "%%bash\n"


def page_text(page: Path) -> str:
    """A page in Markdown; of a notebook the text, and the cells of commands (`%%bash`) as blocks of bash."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return text
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif source.startswith(MAGIC):
            parts.append(f"```bash\n{source.removeprefix(MAGIC)}\n```")
    return "\n\n".join(parts)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page_text(page), re.DOTALL | re.MULTILINE)


def spans(page: Path) -> list[str]:
    """Code within lines of text."""
    text = re.sub(r"^```.*?^```", "", page_text(page), flags=re.DOTALL | re.MULTILINE)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def commands_in(lines: list[str]) -> list[list[str]]:
    """The words of commands, without where their output goes. "…" is a value, or arguments that are not repeated; N is a number."""
    commands = []
    for line in lines:
        words = ["1" if word == "N" else word for word in shlex.split(line, comments=True)]
        words = list(takewhile(lambda word: word not in (">", "|"), words))
        if words:
            kept = [word for before, word in zip(["", *words], words) if word != "…" or before.startswith("--")]
            commands.append(kept + ["--use_cpu"] * ("--bf16" in kept))
    return commands


def whole_commands(page: Path) -> list[list[str]]:
    return commands_in([line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()])


def partial_commands(page: Path) -> list[list[str]]:
    """Commands and arguments within lines of text, which may lack what is required."""
    return commands_in(
        [span for span in spans(page) if re.match(r"(python|accelerate|make|run_\w+\.py|--\w+)\b", span)]
    )


def commands_at_the_top(path: Path) -> list[list[str]]:
    """The indented commands in the text that a file begins with: a docstring, or comments. What stands in (brackets) is text."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if path.suffix == ".py":
        first = next(k for k, line in enumerate(lines) if line.startswith('"""'))
        length = next((k for k, line in enumerate(lines[first + 1 :]) if line.endswith('"""')), 0)
        lines = lines[first : first + 1 + length]
    else:
        lines = [line.removeprefix("#") for line in takewhile(lambda line: line.startswith("#"), lines)]
    text = "\n".join(re.sub(r" {3,}\(.*", "", line) for line in lines)
    text = re.sub(r"\\\\?\n\s*", " ", text)
    return commands_in(re.findall(r"^ {4,}((?:python|accelerate) .*)$", text, re.MULTILINE))
