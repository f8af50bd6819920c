"""Data sets in local folders, as people have them: read, or refused in one sentence."""

import json
from pathlib import Path

import datasets
import pytest

from utils.core.data_sets import load_split
from utils.core.errors import InputError
from utils.parallel.arguments import ParallelDataArguments
from utils.parallel.data_sets import load_bitext


ROWS = [{"en": "one", "hi": "ek"}, {"en": "two", "hi": "do"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
ARGUMENTS = {"config": "--config", "split": "--split"}


def load(folder: Path, split: str = "train", streaming: bool = False):
    return load_split(str(folder), "hi", ["{language}"], [split], ARGUMENTS, streaming)[0]


def test_folders_of_save_to_disk(tmp_path):
    rows = datasets.Dataset.from_list(ROWS)
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": rows, "test": rows.select([1])}).save_to_disk(tmp_path / "splits")
    assert load(tmp_path / "one").to_list() == ROWS
    assert load(tmp_path / "splits").to_list() == ROWS
    assert load(tmp_path / "splits", "test").to_list() == ROWS[1:]
    data = ParallelDataArguments(parallel_dataset=str(tmp_path / "one"))
    assert load_bitext(data, "hi", str.split).to_list()[0].items() >= {"source": ["ek"], "english": ["one"]}.items()
    with pytest.raises(InputError, match="streaming"):
        load(tmp_path / "one", streaming=True)
    with pytest.raises(InputError, match="no split validation, only train, test"):
        load(tmp_path / "splits", "validation")


@pytest.mark.parametrize("split", ["{x}", "{", "}", "{}", "{0}", "{language.x}", "test-{language}"])
def test_a_split_is_no_format(tmp_path, split):
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "splits")
    with pytest.raises(InputError) as caught:
        load(tmp_path / "splits", split)
    assert split.replace("{language}", "hi") in str(caught.value)


CARD = "---\n{}\n---\n"
FOLDERS: dict[str, dict[str, str | bytes]] = {
    "nothing": {},
    "script": {"script.py": "import datasets", "train.jsonl": LINES},
    "mixed": {"train.csv": "en,hi\none,ek\n", "test.jsonl": LINES},
    "unequal": {"train.jsonl": LINES, "test.jsonl": '{"en": "one", "x": 1}\n'},
    "unknown": {"train.xyz": LINES},
    "empty file": {"train.jsonl": ""},
    "broken": {"train.jsonl": LINES + "{"},
    "parquet": {"train.parquet": b"PAR1xxxx"},
    "arrow": {"train.arrow": b"xxxx"},
    "saved": {"state.json": "{}", "dataset_info.json": "{}"},
    "saved, no JSON": {"state.json": "{", "dataset_info.json": "["},
    "configs": {"README.md": CARD.format("configs: 5"), "train.jsonl": LINES},
    "YAML": {"README.md": CARD.format(": ["), "train.jsonl": LINES},
    "list": {"README.md": CARD.format("configs:\n- 5"), "train.jsonl": LINES},
    "no name": {"README.md": CARD.format("configs:\n- data_files: x"), "train.jsonl": LINES},
    "no file": {
        "README.md": CARD.format("configs:\n- config_name: hi\n  data_files:\n  - split: train\n    path: x.jsonl"),
        "train.jsonl": LINES,
    },
}


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("streaming", [False, True])
def test_folders_that_are_refused_in_a_sentence(tmp_path, name, streaming):
    folder = tmp_path / "folder"
    folder.mkdir()
    for file, text in FOLDERS[name].items():
        (folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    data = ParallelDataArguments(parallel_dataset=str(folder), streaming=streaming)
    rows, message = None, f"{folder}"
    try:
        rows = [[row["source"], row["english"]] for row in load_bitext(data, "hi", str.split).select(range(2))]
    except InputError as error:
        message = str(error)
    # A card may be ignored, and a stream reads no further than it must.
    assert rows in (None, [[[row["hi"]], [row["en"]]] for row in ROWS])
    assert str(folder) in message
    assert "\n" not in message
    assert len(message) < 300 + len(str(folder))
    assert "error occurred while generating" not in message
