"""Names of classes that only the card of a data set has, with a list of files: numbers mean what the card says."""

import json

import pandas
import pyarrow
import pyarrow.parquet
import pytest
import yaml
from datasets import ClassLabel, Dataset, Features, Value

from utils.core.columns import class_names, with_class_names
from utils.core.data_sets import load_split


NAMES = {"en": ["contradiction", "entailment", "neutral"], "hi": ["neutral", "contradiction", "entailment"]}
TAGS = ["O", "B-LOC", "I-LOC"]
ARGUMENTS = {"config": "--config", "split": "--split"}
FORMATS = ("jsonl", "csv", "parquet")


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        pandas.DataFrame(rows).to_csv(path, index=False)
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def card(folder, suffix, languages=tuple(NAMES), columns=("premise", "label")) -> None:
    """Two configurations, each with its own order of the classes, if the card describes them."""
    configs, infos = [], []
    for language in languages:
        configs.append(
            {"config_name": language, "data_files": [{"split": "train", "path": f"{language}/train*.{suffix}"}]}
        )
        kinds = {
            "premise": {"dtype": "string"},
            "label": {"dtype": {"class_label": {"names": dict(enumerate(NAMES[language]))}}},
            "tags": {"sequence": {"class_label": {"names": dict(enumerate(TAGS))}}},
            "other": {"dtype": "int64"},
        }
        infos.append({"config_name": language, "features": [{"name": name, **kinds[name]} for name in columns]})
    text = yaml.safe_dump({"configs": configs, "dataset_info": infos if len(infos) > 1 else infos[0]})
    (folder / "README.md").write_text(f"---\n{text}---\n")


def read(folder, language="en"):
    rows, config, split = load_split(str(folder), language, ["{language}"], ["train"], ARGUMENTS)
    assert (config, split) == (language, "train")
    names = class_names(rows.features)
    return [with_class_names(row, names) for row in rows]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("columns", [("premise", "label"), ("label",), ("other", "premise", "label", "tags")])
@pytest.mark.parametrize("languages", [("en",), ("en", "hi"), ("hi", "en")])
def test_numbers_have_the_names_of_their_configuration(tmp_path, suffix, columns, languages):
    """Also where the card describes fewer columns than there are, or more, or others than the first in the file."""
    for language in languages:
        write(tmp_path / language / f"train-0.{suffix}", [{"x": k, "premise": "p", "label": k} for k in (0, 1, 2)])
        write(tmp_path / language / f"train-1.{suffix}", [{"x": k, "premise": "p", "label": k} for k in (2,)])
    card(tmp_path, suffix, languages, columns)
    for language in languages:
        rows = read(tmp_path, language)
        assert [row["label"] for row in rows] == [NAMES[language][k] for k in (0, 1, 2, 2)]
        assert [row["x"] for row in rows] == [0, 1, 2, 2]
        assert {row["premise"] for row in rows} == {"p"}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 2, None], ["contradiction", "neutral", None]),  # (numbers beside an empty field are floats)
        ([0, -1, 1], ["contradiction", -1, "entailment"]),
        (["0", "2", "1"], ["contradiction", "neutral", "entailment"]),
        (["neutral", "contradiction", "-"], ["neutral", "contradiction", "-"]),
        (["neutral", None, "Neutral"], ["neutral", None, "Neutral"]),
    ],
)
def test_numbers_in_every_form(tmp_path, suffix, values, expected):
    write(tmp_path / "en" / f"train.{suffix}", [{"premise": "p", "label": value} for value in values])
    card(tmp_path, suffix)
    assert [row["label"] for row in read(tmp_path)] == expected


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_lists_of_numbers(tmp_path, suffix):
    write(tmp_path / "en" / f"train.{suffix}", [{"tags": [1, 2, 0]}, {"tags": []}, {"tags": [0]}])
    card(tmp_path, suffix, columns=("tags", "label"))
    assert [row["tags"] for row in read(tmp_path)] == [["B-LOC", "I-LOC", "O"], [], ["O"]]


def test_a_number_beyond_the_names_stays(tmp_path):
    """The reader of the task says what is wrong, and in which row."""
    write(tmp_path / "en" / "train.jsonl", [{"label": 0}, {"label": 3}])
    card(tmp_path, "jsonl")
    assert [row["label"] for row in read(tmp_path)] == ["contradiction", 3]


def test_the_names_in_a_file_go_before_those_in_the_card(tmp_path):
    features = Features({"premise": Value("string"), "label": ClassLabel(names=NAMES["hi"])})
    rows = Dataset.from_dict({"premise": ["p"] * 3, "label": [0, 1, 2]}, features)
    rows.to_parquet(tmp_path / "en" / "train.parquet")
    card(tmp_path, "parquet")
    assert [row["label"] for row in read(tmp_path)] == NAMES["hi"]
