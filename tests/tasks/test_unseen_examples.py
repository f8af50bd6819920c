"""No run is measured on the examples that it was trained on."""

import json
import os
import shutil

import pytest
from datasets import Features, Value

from utils.core.errors import InputError
from utils.tasks.data_arguments import TaskDataArguments
from utils.tasks.examples import identity_of
from utils.tasks.reader import TaskReader


FEATURES = Features({"id": Value("string"), "text": Value("string"), "label": Value("string")})


def read_row(row, where, labels=None):
    return {**identity_of(row, where), "text": row["text"], "label": row["label"]}


def write(path, begin, number=4, **changes):
    path.parent.mkdir(exist_ok=True, parents=True)
    rows = [{"text": f"a text {k}", "label": "xy"[k % 2], **changes} for k in range(begin, begin + number)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def files(tmp_path):
    """The training file under other names, and with ids, and a part of it; and another file."""
    train = write(tmp_path / "train.jsonl", 0)
    shutil.copy(train, tmp_path / "copy.jsonl")
    os.link(train, tmp_path / "hard.jsonl")
    (tmp_path / "link.jsonl").symlink_to(train)
    rows = [json.loads(line) for line in open(train)]  # noqa: SIM115
    (tmp_path / "list.json").write_text(json.dumps([{"id": f"x{k}", **row} for k, row in enumerate(rows)]))
    write(tmp_path / "part.jsonl", 0, 2)
    write(tmp_path / "other.jsonl", 10)
    return tmp_path


def reader(**arguments):
    return TaskReader(TaskDataArguments(**arguments), FEATURES, read_row)


def measured(of, purpose, languages=("en",)):
    of.arguments.eval_languages = list(languages)
    of.train()
    return of.evaluation_sets(purpose)


@pytest.mark.parametrize("purpose", ["validation", "test"])
@pytest.mark.parametrize("name", ["train.jsonl", "copy.jsonl", "hard.jsonl", "link.jsonl", "list.json"])
@pytest.mark.parametrize("limits", [{}, {"max_train_samples": 3}, {"max_eval_samples": 1, "max_predict_samples": 1}])
def test_the_training_file_is_not_measured_on(files, purpose, name, limits):
    given = {"train_file": str(files / "train.jsonl"), f"{purpose}_file": [f"en={files / name}"], **limits}
    with pytest.raises(InputError) as refused:
        measured(reader(**given), purpose)
    assert f"--{purpose}" in str(refused.value)
    assert len(str(refused.value)) <= 300


@pytest.mark.parametrize("name", ["other.jsonl", "part.jsonl"])
def test_other_files_are(files, name):
    of = reader(train_file=str(files / "train.jsonl"), test_file=[f"en={files / name}"])
    assert len(measured(of, "test")["en"]) == (2 if name == "part.jsonl" else 4)


def test_without_training_every_file_is_measured_on(files):
    of = reader(
        train_file=str(files / "train.jsonl"), test_file=[f"en={files / 'train.jsonl'}"], eval_languages=["en"]
    )
    assert len(of.evaluation_sets("test")["en"]) == 4


def test_the_examples_of_few_shot_are_not_measured_on(files):
    write(files / "hi.jsonl", 20)
    write(files / "hi-test.jsonl", 30)
    for name, works in (("hi.jsonl", False), ("hi-test.jsonl", True)):
        of = reader(
            train_file=str(files / "train.jsonl"), few_shot=["hi=2"], few_shot_file=[f"hi={files / 'hi.jsonl'}"],
            test_file=[f"hi={files / name}"],
        )  # fmt: skip
        if works:
            assert len(measured(of, "test", ["hi"])["hi"]) == 4
        else:
            with pytest.raises(InputError, match="--test"):
                measured(of, "test", ["hi"])


@pytest.mark.parametrize(("test", "works"), [("train", False), ("test", True)])
def test_the_splits_of_a_data_set(tmp_path, test, works):
    write(tmp_path / "set" / "en" / "train.jsonl", 0, 8)
    write(tmp_path / "set" / "en" / "test.jsonl", 20, 3)
    of = reader(dataset_name=str(tmp_path / "set"), test_split=test)
    if works:
        assert len(measured(of, "test")["en"]) == 3
    else:
        with pytest.raises(InputError, match="--test"):
            measured(of, "test")
