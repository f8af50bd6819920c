"""Every file of ../shared/cases ends well or in one sentence. (Skipped where the folder is missing.)"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import replicate
from helpers.outcomes import refusal
from helpers.paths import PROJECT
from helpers.stages import reader_of
from utils.alignment.words import split_on_punctuation
from utils.experiments.comparison import comparison_table, find_baselines
from utils.experiments.comparison_tables import write_tables
from utils.experiments.finished_runs import check_same_data, read_runs
from utils.models.encoders import load_encoder
from utils.parallel.aligners.pharaoh import read_pharaoh
from utils.parallel.formats import read_bitext


CASES = (
    next((folder for folder in (PROJECT / "shared", PROJECT.parent / "shared") if folder.is_dir()), PROJECT) / "cases"
)
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/cases")


def folders(pattern: str) -> list[Path]:
    return sorted({path.parent for path in CASES.glob(f"fuzz/*/{pattern}")})


def unpacked(case: Path, folder: Path) -> Iterator[Path]:
    """The folders of runs whose files a case has under names like `run0__predictions__hi.jsonl`."""
    for path in case.glob("run*__*"):
        place = folder / path.name.replace("__", "/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    yield from sorted(folder.glob("run*"))


@pytest.mark.parametrize("case", folders("run0__run.json"), ids=lambda path: path.name)
def test_finished_runs(case, tmp_path):
    def compare():
        runs = read_runs([str(folder) for folder in unpacked(case, tmp_path)])
        check_same_data(runs)
        table = comparison_table(runs, find_baselines(str(runs[0].system), runs), n_resamples=100)
        write_tables([table], tmp_path)

    refusal(compare)


TASKS = ("run_nli", "run_ner", "run_qa")
# Whose files they are, by the beginning of their names; others are given to all.
_OWNERS = {
    "nli": ("run_nli",),
    "ner": ("run_ner",),
    "qa": ("run_qa",),
    "ph": (),
    "nbsp": ("hi",),
    "zh": ("zh",),
    "t.": ("hi",),
}
_FILES = sorted(path for path in CASES.glob("*.*") if path.is_file() and path.name != "README.md")
_FILES += sorted(
    path for path in CASES.glob("fuzz/*/*.*") if path.suffix != ".txt" and not path.name.startswith("run")
)
CASES_OF_SCRIPTS = [
    (path, owner)
    for path in _FILES
    for owner in next((owners for name, owners in _OWNERS.items() if path.name.startswith(name)), ("hi", *TASKS))
]


@pytest.mark.parametrize(("path", "owner"), CASES_OF_SCRIPTS, ids=lambda one: getattr(one, "name", one))
def test_files(path, owner, tmp_path):
    """A file, as the script of a task or one that reads parallel text (of a language) reads it."""
    path = shutil.copy(path, tmp_path)
    if owner in TASKS:
        reader = reader_of(owner)
        refusal(lambda: reader._from_file(path, "en", reader.read_example))
    else:
        refusal(lambda: read_bitext([path], owner, split_on_punctuation, "punctuation"))


@pytest.mark.parametrize("names", [("t.eng", "t.hin"), ("t.hin", "t.eng")])
def test_two_files(names):
    """The sides are found by the names of the files."""
    paths = [str(CASES / name) for name in names]
    pairs = read_bitext(paths, "hi", split_on_punctuation, "punctuation")
    assert all(ord(max("".join(words))) > 0x900 for words in pairs["source"])


@pytest.mark.parametrize("path", [*sorted(CASES.glob("ph.*")), CASES / "nbsp.links"], ids=lambda path: path.name)
@pytest.mark.parametrize("least", [None, 0.5])
def test_links(path, least):
    refusal(lambda: list(read_pharaoh(path, min_score=least)))


@pytest.mark.parametrize("folder", sorted(CASES.glob("ds-*")), ids=lambda path: path.name)
def test_folders_of_data(folder, tmp_path):
    reader = reader_of("run_nli")
    arguments = (str(shutil.copytree(folder, tmp_path / folder.name)), None, "train", reader.read_example)
    refusal(lambda: reader._from_dataset("train", "en", *arguments))


@pytest.mark.parametrize("folder", sorted(CASES.glob("adapter-*")), ids=lambda path: path.name)
def test_adapters(folder, tmp_path, model):
    adapter = shutil.copytree(folder, tmp_path / folder.name)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": model}))
    refusal(lambda: load_encoder(str(adapter)))


@pytest.mark.parametrize("case", folders("words"), ids=lambda path: path.name)
def test_overrides(case):
    words = (case / "words").read_text(encoding="utf-8").splitlines() or [""]
    refusal(lambda: replicate.read_settings({}, words))
    for word in words:
        refusal(lambda word=word: replicate.read_settings({"nli": word}, [f"nli.a={word}"]))
