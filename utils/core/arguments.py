"""How a script parses its arguments, and the checks that argument dataclasses share."""

import difflib
import json
import math
import operator
import sys
from argparse import Action, ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, field, fields
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from utils.core.errors import InputError


class _Help(str):
    """The help text of an argument, with what argparse does not know of it: its range, and whether it is of the method."""

    bounds: Mapping[str, float]
    hyperparameter: bool


_BOUNDS: dict[str, tuple[Callable[[Any, float], bool], str]] = {
    "at_least": (operator.ge, "at least"),
    "above": (operator.gt, "more than"),
    "at_most": (operator.le, "at most"),
    "below": (operator.lt, "less than"),
}


def arg(
    default: Any = MISSING,  # noqa: ANN401
    *,
    help: str,
    default_factory: Callable[[], Any] | None = None,
    aliases: Sequence[str] = (),
    choices: Sequence[str] | None = None,
    hyperparameter: bool = False,
    **bounds: float,
) -> Any:  # noqa: ANN401
    """A field of an argument dataclass.

    Args:
        default, default_factory: as for `dataclasses.field`.
        help: what `--help` says.
        aliases: other spellings, such as `["--model"]`.
        choices: the values that are allowed.
        hyperparameter: whether the argument changes what is learned. Such arguments are recorded as the settings of a
            run, shown in model cards, and tell systems apart in comparisons.
        bounds: `at_least`, `above`, `at_most`, `below`: the range of a number, checked by `parse_arguments`. (A number
            is always checked to be finite.)
    """
    if unknown := set(bounds) - set(_BOUNDS):
        raise TypeError(f"Unknown bounds {unknown}; there are {', '.join(_BOUNDS)}.")
    text = _Help(help)
    text.bounds, text.hyperparameter = bounds, hyperparameter
    metadata: dict[str, Any] = {"help": text}
    if aliases:
        metadata["aliases"] = list(aliases)
    if choices is not None:
        metadata["choices"] = list(choices)
    if default_factory is not None:
        return field(default_factory=default_factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def check_ranges(arguments: Any) -> None:  # noqa: ANN401
    """Stop if a number among the arguments of a dataclass is not finite, or outside the range declared by `arg`.

    Raises:
        InputError: naming the argument, its value and its range.
    """
    for item in fields(arguments):
        value, text = getattr(arguments, item.name), item.metadata.get("help")
        numbers = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, int | float)]
        for number in numbers:
            if not math.isfinite(number):
                raise InputError(f"--{item.name} {number} is not a finite number; give one that is.")
            for name, bound in text.bounds.items() if isinstance(text, _Help) else ():
                holds, words = _BOUNDS[name]
                if not holds(number, bound):
                    raise InputError(f"--{item.name} {number} is out of range; it must be {words} {bound}.")


def hyperparameters(arguments: Any) -> dict[str, Any]:  # noqa: ANN401
    """The arguments of a dataclass that are declared as hyperparameters, by name."""
    declared = [item.name for item in fields(arguments) if getattr(item.metadata.get("help"), "hyperparameter", False)]
    return {name: getattr(arguments, name) for name in declared}


class _HelpFormatter(ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter):
    """Shows defaults (but not that there is none), and the script's own description as it was written."""

    def _get_help_string(self, action: Action) -> str | None:
        return action.help if action.default in (None, []) else super()._get_help_string(action)


def parse_arguments(
    *dataclasses: type, description: str | None = None, positional: str | None = None
) -> tuple[Any, ...]:
    """Parse `sys.argv` into one object per dataclass.

    A single argument that ends in `.json`, `.yaml` or `.yml` is read as a file of settings; arguments after it win
    over what it says.

    Args:
        dataclasses: of the arguments.
        description: what `--help` begins with.
        positional: an argument whose values may also stand first, without its name.

    Raises:
        InputError: for a settings file that is missing or is no mapping of arguments.
    """
    for group in dataclasses:  # --help shows the arguments under what their class says of itself
        group._argument_group_name = group.__doc__.split("\n")[0].rstrip(".")
    first = f" [{positional.upper()} ...]" if positional else ""
    usage = f"%(prog)s [settings.yaml]{first} [--argument value ...]"  # (the list of all is what follows it)
    parser = HfArgumentParser(
        dataclasses, usage=usage, description=description, formatter_class=_HelpFormatter, allow_abbrev=False
    )
    settings, arguments = [], sys.argv[1:]
    if arguments and arguments[0].endswith((".json", ".yaml", ".yml")):
        settings, arguments = _arguments_from(arguments[0]), arguments[1:]
    if positional and arguments and not arguments[0].startswith("-"):
        arguments = [f"--{positional}", *arguments]
    arguments = [*settings, *arguments]
    try:
        *parsed, unknown = parser.parse_args_into_dataclasses(args=arguments, return_remaining_strings=True)
    except InputError:
        raise
    except (ValueError, ImportError) as error:  # TrainingArguments checks its values as it is made
        raise InputError(f"These arguments do not work together: {' '.join(str(error).split())}") from None
    if unknown:
        known = [option for action in parser._actions for option in action.option_strings]
        close = difflib.get_close_matches(unknown[0], known, n=1)
        remedy = f"did you mean {close[0]}?" if close else "see --help."
        if positional and not unknown[0].startswith("-"):
            remedy = f"write {positional} before everything else, or after --{positional}."
        raise InputError(f"There is no argument {unknown[0]}; {remedy}")
    for group in parsed:
        check_ranges(group)
    return tuple(parsed)


def _arguments_from(path: str) -> list[str]:
    """A settings file as the words that would be typed (YAML reads JSON as well)."""
    try:
        # Every value as it is written: `no` is Norwegian here, not false.
        settings = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except OSError as error:
        raise InputError(f"The settings file {path} cannot be read ({error.strerror}); check the path.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            f"The settings file {path} is neither YAML nor JSON ({' '.join(str(error).split())})."
        ) from None
    if not isinstance(settings, dict):
        raise InputError(f"The settings file {path} must map argument names to values, like `seed: 42`.")
    words = []
    for name, value in settings.items():
        if value not in ("", "~", "null"):
            values = value if isinstance(value, list) else [value]
            words += [f"--{name}", *(json.dumps(v) if isinstance(v, dict) else v for v in values)]
    return words


def check_unused(arguments: object, switch: str, but: Sequence[str] = ()) -> None:
    """Stop if an argument is given that does nothing without a switch.

    Args:
        arguments: a dataclass whose fields all have defaults.
        switch: name of the argument that is missing.
        but: names of fields that are used without it, too.
    """
    for item in fields(arguments):
        usual = item.default if item.default_factory is MISSING else item.default_factory()
        value = getattr(arguments, item.name)
        if value != usual and item.name not in but:
            raise InputError(f"--{item.name} {value} does nothing without --{switch} (default: {usual}); add it.")


def at_least(least: int, arguments: object, name: str) -> None:
    """Stop if an argument that is given is smaller than it can be."""
    value = getattr(arguments, name)
    if value is not None and value < least:
        raise InputError(f"--{name} {value} is too small; it must be at least {least}.")


def require(value: object, arguments: Sequence[str], why: str) -> None:
    """Stop if none of the arguments was given."""
    if not value:
        raise InputError(f"{' or '.join(arguments)} is missing: {why}.")
