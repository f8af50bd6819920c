"""What the tests of several scripts share."""

import shutil
from pathlib import Path

import pytest

from helpers import tiny


# Every process has a copy of the model (DDP), or a part of it (FSDP).
DIVISIONS = {
    "ddp": (),
    "fsdp": ("--fsdp", "--fsdp_config",
             '{"fsdp_version": 2, "transformer_layer_cls_to_wrap": ["BertLayer"]}'),
}  # fmt: skip


@pytest.fixture(scope="session")
def _encoder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    tiny.model().save_pretrained(folder)
    tiny.pair_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def model(tmp_path, _encoder) -> str:
    """A folder with a tiny encoder and its tokenizer."""
    return str(shutil.copytree(_encoder, tmp_path / "encoder"))


@pytest.fixture
def bitext(tmp_path) -> Path:
    """24 sentence pairs."""
    path = tmp_path / "bitext.tsv"
    pairs = [(tiny.TEXT[k % 5 + 1], tiny.TEXT[0].replace("7", str(k))) for k in range(24)]
    path.write_text("".join(f"{source}\t{english}\n" for source, english in pairs), encoding="utf-8")
    return path


@pytest.fixture
def held_out(bitext, tmp_path) -> Path:
    """Pairs to measure on: some of `bitext`, since a model that has seen them is no matter here."""
    path = tmp_path / "held-out.tsv"
    path.write_text(bitext.read_text(encoding="utf-8").partition("\n")[2], encoding="utf-8")
    return path


def of_another_language(bitext: Path, path: Path, between: str = "\t") -> Path:
    """The same pairs, and one of which a side is empty: two languages with the same pairs are refused."""
    lines = [*bitext.read_text(encoding="utf-8").splitlines(), "\tunpaired"]
    path.write_text("\n".join(line.replace("\t", between) for line in lines), encoding="utf-8")
    return path
