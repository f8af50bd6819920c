"""Records beside models: what a damaged one does, and when."""

import json
from pathlib import Path

import pytest

import run_align
from helpers import tiny
from helpers.paths import DATA
from helpers.task_scripts import QUICK
from utils.core.errors import InputError
from utils.models.hub import ModelArguments
from utils.models.lineage import adjusted_languages, ancestors, lineage, original_model


NO_OBJECTS = ["", "{", "[]", "null", "5", '"text"', '{"base_model": "x"', "\ufeff", "[" * 100_000]


@pytest.mark.parametrize("content", NO_OBJECTS)
@pytest.mark.parametrize("generation", [0, 1])
def test_a_damaged_record_is_found_before_anything_is_done(tmp_path, content, generation):
    """Of the model itself, or of one that it was made from."""
    folders = [tmp_path / "model", tmp_path / "parent"]
    for folder in folders:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    (folders[0] / "run.json").write_text(json.dumps({"base_model": str(folders[1])}))
    (folders[generation] / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"run\.json"):
        ModelArguments().find(str(folders[0]))


@pytest.mark.parametrize("value", [None, 5, 1.5, True, [], ["x"], {}, {"x": 1}, "", "no/where", "\0", "x" * 5000])
@pytest.mark.parametrize("field", ["base_model", "base_model_revision"])
def test_odd_values_end_the_chain_or_are_refused(tmp_path, field, value):
    (tmp_path / "run.json").write_text(json.dumps({"base_model": "no/base", field: value}))
    try:
        chain = lineage(str(tmp_path))
    except InputError:
        assert value is not None
        assert not isinstance(value, str)
        return
    assert chain[0].name == str(tmp_path)
    assert all(isinstance(model.name, str) and isinstance(model.revision, str) for model in chain)
    assert len(ancestors(str(tmp_path))) == len(chain) - 1
    assert original_model(str(tmp_path))[0] == chain[-1].name


def test_scripts_refuse_it_before_the_training(run, tmp_path, fine_tune):
    model = Path(tiny.checkpoint(tmp_path / "model"))
    (model / "run.json").write_text("[]")
    words = ("--language", "hi", "--parallel_dataset", DATA / "parallel")
    with pytest.raises(InputError, match=r"run\.json"):
        run(run_align.main, "--model", model, *words, "--output_dir", tmp_path / "aligned", *QUICK)
    with pytest.raises(InputError, match=r"run\.json"):
        fine_tune("nli", "--model", model, "--do_train")
    assert not (tmp_path / "aligned").exists()
    assert not (tmp_path / "out").exists()


def record_in(folder: Path, **record) -> None:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"arguments": {}, **record}))


@pytest.mark.parametrize(
    ("base", "output_dir", "is_found"),
    [
        ("runs/aligned", "runs/aligned", True),
        ("./runs/aligned/", "runs/aligned", True),
        ("/work/runs/aligned", "/work/runs/aligned", True),
        ("/work/runs/aligned", "runs/aligned", True),
        ("runs/aligned", "/work/runs/aligned", True),
        ("aligned", "aligned", True),
        ("org/aligned", "runs/aligned", False),
        ("org/aligned", "aligned", False),
        ("org/aligned", "/work/runs/aligned", False),
        ("/work/old/aligned", "runs/aligned", False),
        ("runs/aligned", None, False),
    ],
)
def test_runs_that_moved_together(tmp_path, base, output_dir, is_found):
    """A folder beside a model is the one that it was made from if it was written to that place, not by its name alone."""
    record_in(tmp_path / "moved" / "nli", base_model=base)
    written = {"output_dir": output_dir, "languages": ["ru"]} if output_dir else {"languages": ["ru"]}
    record_in(tmp_path / "moved" / "aligned", base_model="org/original", arguments=written)
    chain = [model.name for model in lineage(str(tmp_path / "moved" / "nli"))]
    assert chain[1:] == ([base, "org/original"] if is_found else [base])
    assert adjusted_languages(str(tmp_path / "moved" / "nli")) == (["ru"] if is_found else [])
