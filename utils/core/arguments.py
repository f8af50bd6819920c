"""How a script parses its arguments, and the checks that argument dataclasses share."""

import difflib
import json
import logging
import math
import operator
import os
import re
import sys
from argparse import Action, ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from transformers import HfArgumentParser

from utils.core.checked_commands import ONLY_READ, ArgumentsRead
from utils.core.errors import InputError, input_errors
from utils.core.files import RESULTS
from utils.core.kept_help import keep_help
from utils.core.redaction import note_secrets
from utils.core.settings import parse_yaml


logger = logging.getLogger(__name__)

_BOUNDS: dict[str, tuple[Callable[[Any, float], bool], str]] = {
    "at_least": (operator.ge, "at least"),
    "above": (operator.gt, "more than"),
    "at_most": (operator.le, "at most"),
    "below": (operator.lt, "less than"),
}
# The names of arguments whose files and folders are read, and of those that are written.
_READ = re.compile(r"(?!output_).*_file|.*dataset(_name)?|.*model(_name_or_path)?|runs|baseline(_run)?")
_WRITTEN = re.compile(r"output_dir|output_file|write_.*")
# The names of arguments that are languages, and what is one.
_LANGUAGES = re.compile(r"(.*_)?languages?|language_pairs|cross_lingual")
# Codes of languages (Aura, Cofán, Nusa Laut, Prasuni) that cannot be file names on Windows.
_DEVICES = frozenset({"aux", "con", "nul", "prn"})
_LANGUAGE = re.compile(r"\w[\w.-]{0,39}")
# The range of a number that has no other: no count, seed or size is larger, and libraries in C take no larger integer.
_LARGEST = 2**31 - 1


def arg(
    default: Any = MISSING,
    *,
    help: str,
    default_factory: Any = MISSING,
    aliases: Sequence[str] = (),
    choices: Sequence[str] = (),
    hyperparameter: bool = False,
    variant: bool | Callable[[Any], str | None] = False,
    **bounds: float,
) -> Any:
    """A field of an argument dataclass; without a default, the argument is required.

    Args:
        help: explanation for `--help`, which adds the default and the range.
        aliases: other spellings, such as `["--model"]`.
        hyperparameter: whether the argument changes what is learned. Such arguments are recorded as the settings of a
            run and shown in model cards.
        variant: whether another value than the default makes another *system* in comparisons (a different kind of training,
            rather than the same with other numbers), which is then named by argument and value, or by this function of the
            value (None: it is not named).
        bounds: `at_least`, `above`, `at_most`, `below`: the range of a number, checked by `parse_arguments`, which also
            checks that every number is finite.
    """
    if unknown := set(bounds) - set(_BOUNDS):
        raise TypeError(f"Unknown bounds {unknown}; there are {', '.join(_BOUNDS)}.")
    metadata: dict[str, Any] = {"help": help, "aliases": list(aliases), "bounds": bounds}
    metadata |= {"hyperparameter": hyperparameter, "variant": variant}
    metadata |= {"choices": list(choices)} if choices else {}
    return field(default=default, default_factory=default_factory, metadata=metadata)


def bounds_of(arguments: Any, item: Field) -> Mapping[str, float]:
    """The range of a field of an argument dataclass: declared by `arg` or, if inherited from a library, in its `BOUNDS`."""
    return getattr(arguments, "BOUNDS", {}).get(item.name, {}) | item.metadata.get("bounds", {})


def check_ranges(arguments: Any) -> None:
    """Raise an `InputError` if a number in an argument dataclass is not finite or out of its range (`bounds_of`)."""
    for item in fields(arguments):
        value = getattr(arguments, item.name)
        for number in _numbers_in(value):
            if isinstance(number, float) and not math.isfinite(number):
                raise InputError(f"--{item.name} {number} is not a finite number; give one that is.")
        for number in _numbers_in(value) if not isinstance(value, dict) else ():
            for name, bound in {"at_least": -_LARGEST, "at_most": _LARGEST, **bounds_of(arguments, item)}.items():
                holds, words = _BOUNDS[name]
                if not holds(number, bound):
                    raise InputError(f"--{item.name} {number} is out of range; it must be {words} {bound}.")


def check_languages(arguments: Any) -> None:
    """Raise an `InputError` if a language in an argument dataclass is not a code: they name files, rows of tables, data."""
    for item in fields(arguments):
        value = getattr(arguments, item.name) if _LANGUAGES.fullmatch(item.name) else None
        for language in value if isinstance(value, list) else filter(None, [value]):
            if not is_language(language):
                raise InputError(f"--{item.name} {language} is not a language code, such as hi or zh-Hans.")
            if os.name == "nt" and language.partition(".")[0].casefold() in _DEVICES:
                raise InputError(
                    f"--{item.name} {language} is the name of a device on Windows, which no file can have; add the script, as in "
                    f"{language.partition('.')[0]}-Latn."
                )


def is_language(name: object) -> bool:
    """Whether a name can be the code of a language, or of two (`hi-en`): letters, digits, `-`, `_` and `.`."""
    return isinstance(name, str) and _LANGUAGE.fullmatch(name) is not None


def check_outputs(groups: Sequence[Any]) -> None:
    """Raise an `InputError` if arguments name a file or folder that is read and written, or written twice.

    The names of arguments say which are which. A model is not measured in its own folder either: the record of how it was made
    is there, which later runs follow.
    """
    named = [(item.name, getattr(group, item.name)) for group in groups for item in fields(group)]
    written = [(name, path) for name, value in named if _WRITTEN.fullmatch(name) for path in _paths_in(value)]
    read = [(name, path) for name, value in named if _READ.fullmatch(name) for path in _paths_in(value)]
    for number, (output, path) in enumerate(written):
        for name, other in [*read, *written[:number]]:
            if _overwrites(path, other, output != "output_dir"):
                raise InputError(f"--{output} {path} would overwrite --{name} {other}; choose another {output}.")


def _paths_in(value: object) -> list[str]:
    """The paths that an argument may mean: PATH, LANGUAGE=PATH, or LANGUAGE=PATH,PATH."""
    texts = [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str) and text]
    tails = [text.partition("=")[2] or text for text in texts]
    named = [dict.fromkeys(os.path.realpath(path) for path in (tail, *tail.split(",")) if path) for tail in tails]
    return [path for paths in named for path in paths]


def _overwrites(output: str, path: str, is_file: bool) -> bool:
    """Whether writing to an output (a file, or a folder of results) destroys what is at another path; both are real paths."""
    if output == path or os.path.exists(output) and os.path.exists(path) and os.path.samefile(output, path):
        return True
    inside, around = os.path.relpath(path, output).split(os.sep)[0], os.path.relpath(output, path).split(os.sep)[0]
    result = inside != os.pardir and any(fnmatch(inside, name) for name in RESULTS)
    return os.path.isfile(output) and around != os.pardir if is_file else os.path.exists(path) and result


def _numbers_in(value: object) -> list[int | float]:
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    if values is None:
        return [value] if isinstance(value, int | float) else []
    return [number for one in values for number in _numbers_in(one)]


def hyperparameters(arguments: Any) -> list[str]:
    """The names of a dataclass's hyperparameters, declared by `arg` or, if inherited from a library, in `HYPERPARAMETERS`."""
    declared = [item.name for item in fields(arguments) if item.metadata.get("hyperparameter")]
    return list(dict.fromkeys([*getattr(arguments, "HYPERPARAMETERS", ()), *declared]))


def variant_names(arguments: Any, only: Collection[str]) -> list[str]:
    """What makes a run with these arguments another system than one with the defaults (`variant` of `arg`), if `only` names it."""
    names = []
    for item in fields(arguments):
        name, value = item.metadata.get("variant"), getattr(arguments, item.name)
        if name and value != default_of(item) and item.name in only:
            values = value if isinstance(value, list) else [value]
            names.append(name(value) if callable(name) else " ".join([item.name, *map(_word, values)]))
    return [name for name in names if name]


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def default_of(item: Field) -> Any:
    """The default of a field of a dataclass."""
    return item.default if item.default_factory is MISSING else item.default_factory()


_INHERITED = "Everything else that Trainer can do (transformers.TrainingArguments)"


class _Parser(HfArgumentParser):
    """Shows every argument once, with its default and range, by dataclass; those of `TrainingArguments` come last."""

    def __init__(self, dataclasses: Sequence[Any], **options: Any) -> None:
        self.titles: dict[str, str] = {}
        self.bounds: dict[str, Mapping[str, float]] = {}
        self.actions: dict[str, Action] = {}  # by spelling
        # (Not by the types of the fields, which HfArgumentParser changes.)
        hints = [hint for group in dataclasses for hint in get_type_hints(group).items()]
        self.mappings = {name for name, kind in hints if "dict" in str(kind)}
        for group in dataclasses:
            title = (group.__doc__ or group.__name__).split("\n")[0].rstrip(".")
            self.titles |= {item.name: title if "bounds" in item.metadata else _INHERITED for item in fields(group)}
            self.bounds |= {item.name: bounds_of(group, item) for item in fields(group)}
        self.groups: dict[str, Any] = {}
        super().__init__(dataclasses, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def add_argument(self, *names: str, **options: Any) -> Action:  # type: ignore[override]
        name = options.get("dest") or names[0].lstrip("-")
        if name not in self.titles:  # --help
            return super().add_argument(*names, **options)
        if not self.groups:
            titles = sorted(dict.fromkeys(self.titles.values()), key=_INHERITED.__eq__)  # (inherited ones last)
            self.groups = {title: self.add_argument_group(title) for title in titles}
        # `parse_arguments` reads --with-hyphens as --with_underscores.
        shown = [spelling for spelling in names if "-" not in spelling[2:]]
        if options.get("action") is None:
            if options.get("nargs") == "?":
                options["metavar"] = "true|false"
            elif not 0 < len(options.get("choices") or ()) < 8:
                options["metavar"] = name.rpartition("_")[2].upper()
        for not_of_argparse in ("hyperparameter", "variant", "bounds"):
            options.pop(not_of_argparse, None)
        options["help"] = _explained(options, self.bounds[name])
        action = self.groups[self.titles[name]].add_argument(*shown, **options)
        self.actions |= dict.fromkeys(shown, action)
        return action

    def nearest(self, unknown: str) -> str:
        """What a message about an unknown argument ends with."""
        close = difflib.get_close_matches(unknown, [f"--{name}" for name in self.titles], n=1)
        return f"did you mean {close[0]}?" if close else "see --help."

    def print_help(self, file: Any = None) -> None:
        keep_help(self.format_help())
        super().print_help(file)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"The command line cannot be read ({message}); see --help.")


def _explained(options: Mapping[str, Any], bounds: Mapping[str, float]) -> str:
    """The help text of an argument, with its default and its range."""
    text, default, notes = options.get("help") or "", options.get("default"), []
    if default is not None and default is not False and default not in ("", []) and not options.get("action"):
        values = default if isinstance(default, list) else [default]
        notes.append("default: " + " ".join(str(getattr(value, "value", value)) for value in values))
    notes += [f"{_BOUNDS[name][1]} {bound}" for name, bound in bounds.items()]
    return f"{text} ({'; '.join(notes).replace('%', '%%')})" if notes else text


def parse_arguments(
    *dataclasses: type, description: str | None = None, positional: str | None = None, check: Callable | None = None
) -> Any:
    """Parse `sys.argv` into one object per dataclass.

    A first argument that ends in `.json`, `.yaml` or `.yml` is read as a file of settings; the arguments after it
    override them. `--with-hyphens` means `--with_hyphens`.

    Args:
        dataclasses: the first line of a docstring is the title of its arguments in `--help`.
        description: text that `--help` begins with.
        positional: name of an argument whose values may also come first, without the name.
        check: called with the objects; raises InputError if they contradict each other, without a model, data or a connection.

    Raises:
        InputError: if an argument is unknown or out of range, or if the settings file is missing or not a mapping.
    """
    first = f" [{positional.upper()} ...]" if positional else ""
    usage = f"%(prog)s [settings.yaml]{first} [--argument value ...]"  # (all arguments are listed below it)
    parser = _Parser(dataclasses, usage=usage, description=description)
    settings, arguments = [], sys.argv[1:]
    if arguments and arguments[0].endswith((".json", ".yaml", ".yml")):
        settings, arguments = _arguments_from(arguments[0], parser), arguments[1:]
    if positional and arguments and not arguments[0].startswith("-"):
        arguments = [f"--{positional}", *arguments]
    named = [parser.actions[word].dest for word in settings if word in parser.actions]
    if twice := next((name for name in named if named.count(name) > 1), None):
        raise InputError(f"The settings file gives {twice} twice, by two names; leave one of them out.")
    arguments = [*settings, *map(_underscored, arguments)]
    name = ""
    for word in arguments:
        name = word if word.startswith("--") else name
        if not _is_text(word):
            raise InputError(f"{name} {word!r} has characters that no name of a file can have; leave them out.")
    # (TrainingArguments checks its own values.)
    with input_errors("These arguments do not work together", Exception):
        *parsed, unknown = parser.parse_args_into_dataclasses(
            arguments, return_remaining_strings=True, look_for_args_file=False
        )
    if unknown:
        is_value = positional and not unknown[0].startswith("-")
        first = f"write {positional} before everything else, or after --{positional}."
        remedy = first if is_value else parser.nearest(unknown[0])
        raise InputError(f"There is no argument {unknown[0]}; {remedy}")
    spelled = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    given = {parser.actions[spelling].dest for spelling in spelled & parser.actions.keys()}
    for group in parsed:
        group.given = given
        note_secrets(vars(group))
        check_ranges(group)
        check_languages(group)
    check_outputs(parsed)
    if check:
        check(*parsed)
    if os.environ.get(ONLY_READ):
        raise ArgumentsRead
    return tuple(parsed)


def _is_text(word: str) -> bool:
    """Whether the system can take a word for the name of a file: no NUL, no half of a surrogate pair."""
    try:
        return b"\0" not in os.fsencode(word)
    except UnicodeEncodeError:
        return False


def _underscored(word: str) -> str:
    """`--with-hyphens=a-value` as `--with_hyphens=a-value`; words that are not names of arguments stay."""
    name, equals, value = word.partition("=")
    return f"--{name[2:].replace('-', '_')}{equals}{value}" if name.startswith("--") else word


def _arguments_from(path: str, parser: _Parser) -> list[str]:
    """A settings file as words of a command line (YAML reads JSON as well)."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"The settings file {path} cannot be read ({error.strerror}); check the path.") from None
    except UnicodeDecodeError:
        raise InputError(f"The settings file {path} is not UTF-8; convert the file (iconv -t utf-8).") from None
    settings = parse_yaml(text, f"The settings file {path}")
    if not isinstance(settings, dict):
        raise InputError(f"The settings file {path} must map argument names to values, like `seed: 42`.")
    words = []
    for name, value in settings.items():
        word = _underscored(f"--{name}")
        if word not in parser.actions:
            raise InputError(
                f"The settings file {path} gives {name}, but there is no such argument; {parser.nearest(word)}"
            )
        if value not in ("", "~", "null"):
            action = parser.actions[word]
            takes_json = isinstance(value, dict) and action.dest in parser.mappings
            values = [json.dumps(value)] if takes_json else value if isinstance(value, list) else [value]
            if remedy := _misfit(values, action):
                raise InputError(f"The settings file {path} gives {name} the value {json.dumps(value):.80}; {remedy}.")
            words += [word, *values]
    return words


def _misfit(values: Sequence[Any], action: Action) -> str:
    """What to do about values of a settings file that an argument does not take; empty if it takes them."""
    is_list = action.nargs in ("+", "*")
    if not values or len(values) > 1 and not is_list:
        return "give one value" + " or a list" * is_list
    for value in values:
        if not isinstance(value, str):
            return "write a list of words, such as [hi=FILE, ru=FILE]" if is_list else "give one value"
        if value.startswith("-") and not _NEGATIVE.match(value):
            return "give values that do not begin like an argument"
        try:
            made = action.type(value) if callable(action.type) else value
        except (TypeError, ValueError, ArgumentTypeError):
            made = None
        if made is None or action.choices is not None and made not in action.choices:
            kind = " or ".join(map(str, action.choices)) if action.choices else getattr(action.type, "__name__", "")
            return f"give {_KINDS.get(kind, kind)}"
    return ""


_NEGATIVE = re.compile(r"-\.?\d")
_KINDS = {"int": "a whole number", "float": "a number", "string_to_bool": "true or false"}


def check_unused(arguments: Any, switch: str, but: Collection[str] = ()) -> None:
    """Raise an `InputError` if a field of a dataclass is not at its default and does nothing without `--{switch}`, `but` for these."""
    for item in fields(arguments):
        usual, value = default_of(item), getattr(arguments, item.name)
        if value != usual and item.name not in but:
            raise InputError(f"--{item.name} {value} does nothing without --{switch} (default: {usual}); add it.")


def is_given(arguments: Any, name: str) -> bool:
    """Whether the command line or its file of settings names an argument of a dataclass of `parse_arguments`."""
    return name in getattr(arguments, "given", ())


def announce(assumed: Mapping[str, Any], why: str = "") -> None:
    """Say in one line which arguments the command line does not name, what was assumed for them, and why (`for …`)."""
    if assumed:
        values = {name: value if isinstance(value, list) else [value] for name, value in assumed.items()}
        words = (" ".join([name, *map(_word, of_name)]).strip() for name, of_name in values.items())
        logger.info("Not given, so assumed%s: %s.", f" {why}" if why else "", ", ".join(words))


def require(value: object, arguments: Sequence[str], why: str) -> None:
    """Raise an `InputError` that names the arguments and the reason if the value is empty."""
    if not value:
        raise InputError(f"{' or '.join(arguments)} is missing: {why}.")
