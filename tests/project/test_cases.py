"""Every file of ../shared/cases ends well or in one sentence. (Skipped where the folder is missing.)"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import replicate
from helpers.outcomes import refusal
from helpers.paths import PROJECT
from utils.experiments.comparison import comparison_table, find_baselines
from utils.experiments.comparison_tables import write_tables
from utils.experiments.finished_runs import check_same_data, read_runs


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


@pytest.mark.parametrize("case", folders("words"), ids=lambda path: path.name)
def test_overrides(case):
    words = (case / "words").read_text(encoding="utf-8").splitlines() or [""]
    refusal(lambda: replicate.read_settings({}, words))
    for word in words:
        refusal(lambda word=word: replicate.read_settings({"nli": word}, [f"nli.a={word}"]))
