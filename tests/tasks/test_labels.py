"""Labels in every form in which data sets have them: read as what they mean, left out if they are none, or refused."""

import json
import pickle
from itertools import permutations

import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

import run_ner
import run_nli
import run_pawsx
import run_pos
from utils.core.errors import InputError
from utils.tasks.data_arguments import TaskDataArguments
from utils.tasks.examples import UnlabeledError, is_missing
from utils.tasks.question_answering import read_question
from utils.tasks.reader import TaskReader
from utils.tasks.sentence_pairs import name_labels, read_sentence_pair
from utils.tasks.tagging import read_tagged, tagged_features


NLI, PAWSX = run_nli.LABELS, run_pawsx.LABELS
TEXTS = {"premise": "A man sleeps.", "hypothesis": "He is awake."}


def read(label, classes=NLI, labels=None):
    return read_sentence_pair({**TEXTS, "label": label}, "Row 1", tuple(TEXTS), classes, labels)["label"]


def spellings(classes):
    for k, name in enumerate(classes):
        for label in (name, name.upper(), name.title(), f" {name} ", k, str(k), float(k), f"{k}.0", f"LABEL_{k}"):
            yield label, name


@pytest.mark.parametrize("classes", [NLI, PAWSX])
@pytest.mark.parametrize("model", [None, str, str.upper, str.title])
@pytest.mark.parametrize("order", [1, -1])
def test_names_and_numbers_of_classes(classes, model, order):
    """Whatever the model calls the classes, and in whatever order it has them."""
    labels = model and [model(name) for name in classes[::order]]
    for label, name in spellings(classes):
        assert read(label, classes, labels) == (model or str)(name)


def test_two_classes_may_be_false_and_true():
    assert [read(label, PAWSX) for label in (False, True, "false", "True")] == [*PAWSX, *PAWSX]


@pytest.mark.parametrize("label", [3, "3", -2, "-2", 1.5, "1.5", True, False, 10**400, [0], {"a": 1}, b"neutral"])
@pytest.mark.parametrize("labels", [None, NLI])
def test_what_is_no_label_is_refused(label, labels):
    with pytest.raises(InputError, match="Row 1"):
        read(label, labels=labels)


@pytest.mark.parametrize("label", ["maybe", "LABEL_3", "true", "entail ment"])
def test_a_name_that_the_model_does_not_know_is_refused(label):
    with pytest.raises(InputError, match="Row 1"):
        read(label, labels=NLI)


def test_labels_of_ones_own():
    """Other classes than the usual ones: as they are written, and in evaluation in any capitals."""
    assert read("Yes") == "Yes"
    assert read("yes", labels=["No", "Yes"]) == "Yes"
    with pytest.raises(InputError, match="yes"):
        name_labels(Dataset.from_dict({"label": ["Yes", "yes", "no"]}), NLI)


NO_LABELS = [None, "", " ", "-", -1, "-1", -1.0, "-1.0", float("nan"), "NaN"]


@pytest.mark.parametrize("label", NO_LABELS)
def test_no_label(label):
    with pytest.raises(UnlabeledError):
        read(label)


@pytest.mark.parametrize("tags", [None, ["O", None], ["O", ""], ["O", "_"], [-1, 0], ["O", -100]])
def test_a_word_without_a_tag(tags):
    with pytest.raises(UnlabeledError):
        read_tagged({"tokens": ["a", "b"], "ner_tags": tags}, "Row 1", "ner_tags")


class CountingLabel(str):
    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other):
        CountingLabel.compared += 1
        return str.__eq__(self, other)


def test_a_tag_is_found_at_once_among_many(tmp_path):
    """Each tag is compared with a few labels, not with all."""
    types = [f"B-T{k}" for k in range(500)]
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"tokens": types, "ner_tags": types}) + "\n")
    arguments = TaskDataArguments(validation_file=[str(path)], eval_languages=["en"])
    CountingLabel.compared = 0
    reader = TaskReader(arguments, tagged_features("ner_tags"), run_ner.read_sentence)
    assert reader.evaluation("validation", "en", list(map(CountingLabel, types)))["ner_tags"] == [types]
    assert CountingLabel.compared <= 10 * len(types)


# --- Files and data sets ---


def write(path, rows, features=None) -> str:
    data = Dataset.from_list(rows, features=features)
    if path.suffix == ".parquet":
        data.to_parquet(str(path))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        data.to_csv(str(path), sep="," if path.suffix == ".csv" else "\t")
    return str(path)


def reader(path, **arguments) -> TaskReader:
    where = {"train_file": path} if path.endswith((".jsonl", ".csv", ".tsv", ".parquet")) else {"dataset_name": path}
    return TaskReader(TaskDataArguments(**where, **arguments), run_nli.FEATURES, run_nli.read_pair)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "parquet"])
@pytest.mark.parametrize(
    "labels", [[0, 1, 2], ["0", "1", "2"], list(NLI), [0.0, 1.0, 2.0], ["LABEL_0", "LABEL_1", "LABEL_2"]]
)
def test_numbers_in_files(tmp_path, suffix, labels):
    path = write(tmp_path / f"a.{suffix}", [{**TEXTS, "label": label} for label in labels])
    assert reader(path).train()["label"] == list(NLI)


@pytest.mark.parametrize("names", permutations(NLI))
@pytest.mark.parametrize("spelling", [str, str.upper])
def test_names_in_the_features_of_a_parquet_file_count(tmp_path, names, spelling):
    """In their order, whatever the usual one is."""
    features = Features(
        {
            "premise": Value("string"),
            "hypothesis": Value("string"),
            "label": ClassLabel(names=list(map(spelling, names))),
        }
    )
    path = write(tmp_path / "a.parquet", [{**TEXTS, "label": k} for k in (2, 0, 1)], features)
    assert reader(path).train()["label"] == [names[2], names[0], names[1]]


@pytest.mark.parametrize(
    ("script", "read_example", "column", "names"),
    [
        (run_ner, run_ner.read_sentence, "ner_tags", ["B-LOC", "O", "I-LOC"]),
        (
            run_pos,
            lambda row, where: read_tagged(row, where, "pos_tags", run_pos.LABELS),
            "pos_tags",
            ["X", "NOUN", "ADJ"],
        ),
    ],
)
def test_names_of_tags_in_the_features_of_a_parquet_file_count(tmp_path, script, read_example, column, names):
    features = Features({"tokens": List(Value("string")), column: List(ClassLabel(names=names))})
    path = write(tmp_path / "a.parquet", [{"tokens": ["a", "b", "c"], column: [2, 0, 1]}], features)
    found = TaskReader(TaskDataArguments(train_file=path), tagged_features(column), read_example).train()
    assert found[column] == [[names[2], names[0], names[1]]]


@pytest.mark.parametrize(
    "metadata", ["{", "7", '{"info": {"features": {"label": {"_type": "Class"}}}}', '{"info": {"features": 1}}']
)
def test_damaged_features_are_refused(tmp_path, metadata):
    table = pa.Table.from_pylist([{**TEXTS, "label": 0}]).replace_schema_metadata({"huggingface": metadata})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="features"):
        reader(str(tmp_path / "a.parquet")).train()


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "parquet"])
def test_rows_without_a_label_are_left_out(tmp_path, suffix):
    for missing in (-1, "-", None) if suffix != "tsv" else (-1, "-"):
        given = [missing, 0, missing, 2] if missing == -1 else [missing, "entailment", missing, "contradiction"]
        path = write(tmp_path / f"a.{suffix}", [{**TEXTS, "label": label} for label in given])
        with pytest.raises(UnlabeledError):
            reader(path).train()
        found = reader(path, skip_unlabeled=True).train()
        assert (found["label"], found["id"]) == (["entailment", "contradiction"], ["1", "3"])
        write(tmp_path / f"a.{suffix}", [{**TEXTS, "label": missing}])
        with pytest.raises(InputError, match="no labeled example"):
            reader(path, skip_unlabeled=True).train()


def test_unlabeled_rows_of_a_data_set_are_left_out(tmp_path_factory):
    """SNLI: -1 beside the numbers of named classes; whole batches of them too."""
    folder = tmp_path_factory.mktemp("snli")
    features = Features({name: Value("string") for name in TEXTS} | {"label": ClassLabel(names=list(NLI))})
    labels = [-1] * 1000 + [2, -1, 0]
    write(folder / "train.parquet", [{**TEXTS, "label": label} for label in labels], features)
    data_set = reader(str(folder))
    with pytest.raises(UnlabeledError, match="Row 1 of"):
        data_set.train()
    found = reader(str(folder), skip_unlabeled=True, max_train_samples=5).train()
    assert (found["label"], found["id"]) == (["contradiction", "entailment"], ["1000", "1002"])


UNLABELED = [
    lambda: read(None),
    lambda: run_ner.read_sentence({"tokens": ["a"], "ner_tags": [""]}, "Row 1"),
    lambda: read_question({"context": "a", "question": "b", "answers": None}, "Row 1"),
]


@pytest.mark.parametrize("work", UNLABELED)
def test_what_is_said_of_a_row_without_a_label(work):
    """One sentence with both remedies, also where another process has read the row."""
    with pytest.raises(UnlabeledError) as error:
        work()
    message = str(error.value)
    copy = pickle.loads(pickle.dumps(error.value))
    assert (type(copy), str(copy)) == (UnlabeledError, message)
    assert message.count("--skip_unlabeled") == message.count(";") == message.count(".") == 1


def test_a_label_in_another_column_is_not_a_missing_label(tmp_path):
    path = write(tmp_path / "a.jsonl", [{**TEXTS, "gold_label": "neutral"}])
    with pytest.raises(InputError, match="no column label"):
        reader(path, skip_unlabeled=True).train()


@pytest.mark.parametrize("classes", [NLI, ("different", "paraphrase")])
@pytest.mark.parametrize("wrong", ["entailement", "Paraphrase ", "x"])
@pytest.mark.parametrize(("n_wrong", "is_refused"), [(1, True), (3, True), (30, False)])
def test_a_rare_label_beside_all_usual_classes_is_a_mistake(classes, wrong, n_wrong, is_refused):
    rows = Dataset.from_dict({"label": [*classes] * 40 + [wrong] * n_wrong})
    if is_refused:
        with pytest.raises(InputError, match=wrong.strip()):
            name_labels(rows, classes)
    else:
        assert name_labels(rows, classes) == sorted({*classes, wrong})
    # Where a usual class is missing, the labels are others.
    assert wrong in name_labels(Dataset.from_dict({"label": [classes[0]] * 99 + [wrong]}), classes)


@pytest.mark.parametrize("label", ["null", "None", "NA", "n/a", "nan", " ", None, -1, "-"])
def test_spellings_of_no_label(label):
    assert is_missing(label)
