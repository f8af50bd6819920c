"""Sentences with known translations."""

import json
from pathlib import Path

from helpers.paths import REFERENCE


def reference_sentences(number: int) -> tuple[list[str], list[str]]:
    """Twelve pairs of a language: es, ru, hi, vi follow each other."""
    lines = (REFERENCE / "sentences.txt").read_text(encoding="utf-8").splitlines()[12 * number : 12 * number + 12]
    return tuple(list(side) for side in zip(*(line.split(" ||| ") for line in lines)))


PAIRS = [("नदी", "river"), ("पुल", "bridge")]


def dataset(folder: Path, config: str = "hi", split: str = "test", rows=PAIRS, columns=("source_sentence", None)):
    """A local data set with its card."""
    folder.mkdir(exist_ok=True)
    names = (columns[0], columns[1] or "target_sentence")
    lines = [json.dumps(dict(zip(names, row)), ensure_ascii=False) + "\n" for row in rows]
    (folder / f"{config}.jsonl").write_text("".join(lines), encoding="utf-8")
    card = folder / "README.md"
    before = card.read_text().removesuffix("---\n") if card.exists() else "---\nconfigs:\n"
    entry = f"- config_name: {config}\n  data_files: [{{split: {split}, path: {config}.jsonl}}]\n"
    card.write_text(f"{before}{entry}---\n")
    return str(folder)
