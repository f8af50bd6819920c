"""The record of a run: hyperparameters are those that are declared so, and secrets are left out."""

import json
from dataclasses import dataclass

import pytest

from utils.core.arguments import arg
from utils.core.errors import InputError
from utils.core.files import write_json
from utils.core.records import read_record, run_record


@dataclass
class Arguments:
    """Some arguments."""

    speed: float = arg(1.0, help="How fast.", hyperparameter=True)
    include_special_tokens: bool = arg(True, help="Also tokens.", hyperparameter=True)
    verbose: bool = arg(False, help="Print more.")
    token: str = arg("x1", help="A secret.")
    hub_token: str = arg("x2", help="A secret.")
    api_key: str = arg("x3", help="A secret.")
    client_secret: str = arg("x4", help="A secret.")
    smtp_password: str = arg("x5", help="A secret.")


@dataclass
class Others:
    """More of them."""

    weight: int = arg(3, help="How much.", hyperparameter=True)


def test_a_hyperparameter_that_is_declared_is_recorded():
    record = run_record([Arguments(), Others()], seed=5)
    assert record["hyperparameters"] == {"speed": 1.0, "include_special_tokens": True, "weight": 3}
    assert record["seed"] == 5


def test_arguments_without_effect_are_recorded_but_not_as_hyperparameters():
    others = Others()
    record = run_record([Arguments(), others], unused=[others])
    assert "weight" not in record["hyperparameters"]
    assert record["arguments"]["weight"] == 3
    with_weight = run_record([Arguments(), others], unused=[others], but=["weight"])
    assert with_weight["hyperparameters"] == {**record["hyperparameters"], "weight": 3}


def test_what_makes_another_system_is_recorded():
    @dataclass
    class Settings:
        unit: str = arg("word", help="", variant=str)
        frozen: list[int] = arg(default_factory=list, help="", variant=True)
        embeddings: bool = arg(True, help="", variant=True)
        weight: float = arg(1.0, help="", variant=lambda weight: None if weight else "weight 0")
        rate: float = arg(0.1, help="", hyperparameter=True)

    def variant(**values):
        return run_record([Settings(**values)])["variant"]

    assert variant() == variant(rate=0.5, weight=0.5) == []
    assert variant(unit="sentence", frozen=[0, 1], embeddings=False, weight=0.0) == [
        "sentence", "frozen 0 1", "embeddings false", "weight 0",
    ]  # fmt: skip
    assert run_record([Settings(unit="both")], unused=[])["variant"] == ["both"]
    unused = Settings(unit="both")
    assert run_record([unused], unused=[unused])["variant"] == []


def test_secrets_are_left_out():
    record = run_record([Arguments()])
    assert set(record["arguments"]) == {"speed", "include_special_tokens", "verbose"}


RECORD = {
    "base_model": "mbert", "base_model_revision": None, "seed": 1, "task": "x", "regime": "plain",
    "arguments": {"languages": ["hi"], "use_lora": False}, "hyperparameters": {"learning_rate": 0.1},
    "train_data": {"examples": 8, "sha256": "a"}, "eval_data": {"hi": {"examples": 8, "sha256": "a", "split": None}},
    "predict_data": None,
}  # fmt: skip


def test_a_record_is_read_back(tmp_path):
    write_json(tmp_path / "run.json", RECORD)
    assert read_record(tmp_path / "run.json", "run again") == RECORD


@pytest.mark.parametrize(
    ("place", "value"),
    [("base_model", ["a"]), ("base_model_revision", ["a"]), ("seed", "1"), ("task", {}), ("regime", 3), ("arguments", [1]),
     ("arguments.languages", "hi"), ("arguments.languages", [["hi"]]), ("hyperparameters", "x"), ("train_data", [1]),
     ("train_data.sha256", None), ("eval_data", "x"), ("eval_data.hi", 3), ("eval_data.hi.sha256", None),
     ("eval_data.hi.examples", "8"), ("eval_data.hi.split", [])],
)  # fmt: skip
def test_a_record_with_values_of_other_types_is_damaged(tmp_path, place, value):
    record = json.loads(json.dumps(RECORD))
    *names, last = place.split(".")
    part = record
    for name in names:
        part = part[name]
    part[last] = value
    write_json(tmp_path / "run.json", record)
    with pytest.raises(InputError, match=rf"run\.json is damaged \({last}"):
        read_record(tmp_path / "run.json", "run again")
