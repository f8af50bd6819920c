"""The record of a run: hyperparameters are those that are declared so, and secrets are left out."""

from dataclasses import dataclass

from utils.core.arguments import arg
from utils.core.records import run_record


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


def test_secrets_are_left_out():
    record = run_record([Arguments()])
    assert set(record["arguments"]) == {"speed", "include_special_tokens", "verbose"}
