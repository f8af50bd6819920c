"""Settings files: every value is read as its argument says, or refused in a sentence with the file and the name."""

from dataclasses import dataclass

import pytest

from utils.core.arguments import arg, parse_arguments
from utils.core.errors import InputError
from utils.training.arguments import AlignTrainingArguments


@dataclass
class Every:
    """An argument of every type."""

    number: int = arg(1, help="x")
    rate: float = arg(0.5, help="x")
    text: str = arg("a", help="x")
    maybe: str | None = arg(None, help="x")
    limit: int | None = arg(None, help="x")
    on: bool = arg(False, help="x")
    off: bool = arg(True, help="x")
    perhaps: bool | None = arg(None, help="x")
    choice: str = arg("a", help="x", choices=["a", "b"])
    words: list[str] = arg(default_factory=list, help="x")
    files: list[str] | None = arg(None, help="x")
    sizes: list[int] = arg(default_factory=list, help="x")


TEXTS, LISTS, NUMBERS = {"text", "maybe"}, {"words", "files"}, {"number", "rate", "limit"}
SWITCHES = {"on", "off", "perhaps"}
SCALARS = TEXTS | NUMBERS | SWITCHES | {"choice"}
ALL = SCALARS | LISTS | {"sizes"}
# What is written → the arguments that take it, and what it is for them.
READ = [
    ("3", NUMBERS, 3), ("1.5", {"rate"}, 1.5), ("-2", NUMBERS, -2), ("true", SWITCHES, True), ("no", SWITCHES, False),
    ("b", TEXTS | {"choice"}, "b"), ("3", TEXTS, "3"), ("true", TEXTS, "true"), ("[b]", TEXTS | {"choice"}, "b"),
    ("[1, 2]", {"sizes"}, [1, 2]), ("7", {"sizes"}, [7]), ("x", LISTS, ["x"]), ("[x, y]", LISTS, ["x", "y"]),
    ("[hi=a.tsv, 'ru=b,c']", LISTS, ["hi=a.tsv", "ru=b,c"]),
]  # fmt: skip
REFUSED = [
    ("{hi: a.tsv}", ALL), ("{hi: [a, b]}", ALL), ("{}", ALL), ("[]", ALL), ("[{hi: a}]", ALL), ("[[1]]", ALL), ("[1, 2]", SCALARS),
    ("[a, b]", SCALARS | {"sizes"}), ("x", NUMBERS | SWITCHES | {"choice", "sizes"}), ("1.5", {"number", "limit", "sizes"}),
    ("true", NUMBERS | {"sizes", "choice"}), ("--on", ALL), ("[--on]", ALL), ("[x, --seed]", LISTS), ("-x", ALL),
]  # fmt: skip


@pytest.fixture
def parse(run, tmp_path):
    def parse_file(name, value, kind=Every):
        (tmp_path / "settings.yaml").write_text(f"{name}: {value}\n")
        (found,) = run(lambda: parse_arguments(kind), tmp_path / "settings.yaml")
        return getattr(found, name)

    return parse_file


@pytest.mark.parametrize(("value", "name", "meant"), [(v, n, m) for v, names, m in READ for n in sorted(names)])
def test_values_of_the_type_are_read(parse, value, name, meant):
    assert parse(name, value) == meant
    assert type(parse(name, value)) is (float if name == "rate" else type(meant))


@pytest.mark.parametrize(("value", "name"), [(v, n) for v, names in REFUSED for n in sorted(names)])
def test_values_of_another_type_are_refused(parse, tmp_path, value, name):
    with pytest.raises(InputError) as refused:
        parse(name, value)
    assert str(tmp_path / "settings.yaml") in str(refused.value)
    assert f" {name} " in str(refused.value)


@pytest.mark.parametrize("value", ["", "~", "null", "''"])
@pytest.mark.parametrize("name", sorted(ALL))
def test_an_empty_value_is_not_given(parse, value, name):
    assert parse(name, value) == getattr(Every(), name)


@pytest.mark.parametrize("name", ["numbr", "wrods"])
def test_an_unknown_name_is_refused_with_the_file(parse, tmp_path, name):
    with pytest.raises(InputError, match="did you mean") as refused:
        parse(name, "3")
    assert str(tmp_path / "settings.yaml") in str(refused.value)


def test_mappings_are_for_arguments_that_are_mappings(parse):
    for _ in range(2):
        found = parse("lr_scheduler_kwargs", "{num_cycles: 2}", AlignTrainingArguments)
        assert {name: float(number) for name, number in found.items()} == {"num_cycles": 2}
