"""The paper's grid: which models are compared on which tasks, and with which settings."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from utils.core.arguments import arg, require
from utils.core.errors import InputError
from utils.core.redaction import is_secret, note_secrets
from utils.experiments.arms import (
    ABLATION,
    ADJUSTED,
    FORGETTING,
    FURTHER,
    GRID_TASKS,
    MEASURED,
    ORIGINAL,
    PAPER_REGIMES,
    PAPER_TASKS,
    REGIMES,
    TRANSLATED,
    WORDS,
    Arm,
)
from utils.models.hub import MBERT
from utils.parallel.sides import ENGLISH
from utils.tasks.registry import TASKS


# What the settings of a grid are for, by name.
SETTINGS = {
    "parallel": "parallel pairs and word links, in all scripts",
    "align": "run_align.py",
    "continual": "continual learning",
    **{
        task: f"run_{FURTHER[task].task if task in FURTHER else task}.py"
        for task in GRID_TASKS
        if task not in (WORDS, FORGETTING)
    },
    **{f"{task}_translated": f"run_{task}.py in the regime {TRANSLATED}: training data by language" for task in TASKS},
    "variants": "variants of the alignment by name: arguments of run_align.py and of continual learning, besides those above",
    "distances": "run_distances.py; without them no distances are measured",
    "launch": "accelerate launch; never by language",
}

# Values that stand for an argument that is not given.
UNSET = (None, "", "~", "null")
# Arguments that say with which vectors word retrieval is measured, and their defaults.
_USUAL_REPRESENTATION = {"alignment_layer": -1, "word_pooling": "avg"}
# Arguments that say on which pairs and links; the original and all variants are measured on the same ones.
_OF_HELD_OUT_PAIRS = ("anchor_language", "include_special_tokens", "max_eval_pairs", "max_seq_length", "max_words", "romanize",
                      "validation_file", "validation_links_file", "validation_split", "validation_split_percentage",
                      "word_splitting")  # fmt: skip

# Arguments of the adjustment that continual learning cannot have, and the values that change nothing. (Scripts of tasks romanize
# their examples as well, which would then be others.)
_NOT_CONTINUAL = {"max_seq_length": "", "realign_every": "0", "romanize": ""}


@dataclass
class GridArguments:
    """The grid."""

    model_name_or_path: str = arg(
        MBERT,
        help="The original model; `sample-model`: the small encoder of the quickstart.",
    )
    languages: list[str] = arg(
        default_factory=lambda: ["es", "ru", "vi", "hi"], help="Languages that it is adjusted to, by code."
    )
    seeds: list[int] = arg(
        default_factory=lambda: [1, 2, 3, 4, 5], help="Every run is repeated with each seed.", at_least=0
    )
    tasks: list[str] = arg(default_factory=lambda: list(PAPER_TASKS), help=f"Tasks, of {', '.join(GRID_TASKS)}.")
    regimes: list[str] = arg(
        default_factory=lambda: list(PAPER_REGIMES),
        help=f"Regimes, of {', '.join(REGIMES)}. {ABLATION} is the ablation; {TRANSLATED} trains on data in the language, the "
        "ceiling.",
    )
    only_variants: list[str] | None = arg(
        None, help="Run these of the variants in the file, by name. (default: all of them)"
    )
    joint: bool = arg(
        False,
        help="Adjust one model to all languages at once, instead of the paper's one model for each: about a third of the "
        "runs.",
    )
    cross_lingual: list[str] = arg(
        default_factory=list,
        help="Languages with QA across languages: for hi, Hindi questions about English contexts and vice versa.",
    )

    def __post_init__(self) -> None:
        for name, known in (("tasks", GRID_TASKS), ("regimes", REGIMES)):
            given = getattr(self, name)
            if unknown := [value for value in given if value not in known]:
                raise InputError(f"--{name} {unknown[0]} is unknown; choose from {', '.join(known)}.")
            setattr(self, name, [value for value in known if value in given])
        for task in self.tasks:
            if task in FURTHER and FURTHER[task].task not in self.tasks:
                raise InputError(f"--tasks {task} measures the models of {FURTHER[task].task}; add that task.")
        require(self.languages, ["--languages"], "name the languages that the model is adjusted to")
        require(self.seeds, ["--seeds"], "give one or more, such as 1 2 3")
        self.languages, self.seeds = list(dict.fromkeys(self.languages)), list(dict.fromkeys(self.seeds))


@dataclass
class Grid(GridArguments):
    """What is to be run.

    Attributes:
        settings: name in `SETTINGS` → arguments of these scripts by name. A value that is a mapping with languages is by
            language: a script gets the part for the languages that it deals with, as `LANGUAGE=VALUE`.
        variants: name → arguments, of the alignment; empty if the grid has only one.
        token: of the Hub, for the environment of the runs: command lines are seen by others, and recorded.
    """

    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    token: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        measured = [task for task in MEASURED if task in self.tasks]
        if measured and not self.settings_of("align").get("do_eval"):
            raise InputError(
                f"--tasks {measured[0]} measures held-out pairs; set do_eval in align, and which they are."
            )
        if FORGETTING in self.tasks and not (WORDS in self.tasks and self.first_task):
            raise InputError(f"--tasks {FORGETTING} compares with {WORDS} after fine-tuning; add {WORDS} and a task.")
        variants = self.settings.pop("variants", {})
        for name, settings in variants.items():
            if not re.fullmatch(r"[\w+]+(-[\w+]+)*", str(name)) or not isinstance(settings, dict):
                raise InputError(
                    f"The variant {name} must be a name without spaces with a mapping of arguments to values."
                )
        self.variants = {
            str(variant): {name: self._checked(name, value) for name, value in settings.items()}
            for variant, settings in variants.items()
        }
        for name in self.only_variants or ():
            if name not in self.variants:
                known = f"choose from {', '.join(self.variants)}" if self.variants else "the file has no variants"
                raise InputError(f"--only_variants {name} is unknown; {known}.")
        if self.only_variants:
            self.variants = {name: one for name, one in self.variants.items() if name in self.only_variants}
        of_groups = [of_group for of_group in self.settings.values() if isinstance(of_group, dict)]
        tokens = {str(of_group.pop(name)) for of_group in of_groups for name in list(of_group) if is_secret(name)}
        note_secrets({"token": list(tokens)})
        if len(tokens) > 1:
            raise InputError("The settings of the scripts have different tokens; give one, or set HF_TOKEN.")
        self.token = tokens.pop() if tokens else self.token
        for of_group in of_groups:
            for name, value in of_group.items():
                of_group[name] = self._checked(name, value)
        self._check_continual()
        self._check_anchor()
        for name, variant in self.variants.items() if measured else ():
            usual = self.settings_of("parallel", "align")
            for setting in [
                *_OF_HELD_OUT_PAIRS,
                *(["word_pooling"] if variant.get("word_pooling") == "token" else []),
            ]:
                if setting in variant and variant[setting] != usual.get(setting):
                    raise InputError(
                        f"The variant {name} sets {setting}, so that --tasks {measured[0]} would measure it on other pairs than "
                        "the original; set it in align, for all variants."
                    )
        if not re.fullmatch("[1-9][0-9]{0,5}", str(self.settings_of("launch").get("num_processes", 1))):
            raise InputError("The setting num_processes of launch must be a number of processes, 1 or more.")

    def _check_anchor(self) -> None:
        """Raise InputError if what the report looks up by its name, `hi-en`, would be measured across another language."""
        measured = {task: ("parallel", "align") for task in MEASURED if task in self.tasks}
        measured |= {"distances": ("parallel", "distances")} if "distances" in self.settings else {}
        for name, groups in measured.items():
            anchor = self.settings_of(*groups).get("anchor_language")
            if anchor not in (*UNSET, ENGLISH):
                raise InputError(
                    f"The anchor_language {anchor} does not go with {name}, which a grid measures across {ENGLISH}; leave one of "
                    "the two out."
                )

    def _check_continual(self) -> None:
        """Raise InputError for a variant that would be the same as another one in continual learning, or fail there."""
        usual = self.settings_of("parallel", "align")
        aligns_on = any(REGIMES[regime].continual is not None for regime in self.regimes)
        for name, variant in self.variants.items() if aligns_on else ():
            both = (usual, usual | variant)
            of_all, own = ({one: _text(of.get(one)) or unset for one, unset in _NOT_CONTINUAL.items()} for of in both)
            refused = [one for one in own if own[one] != of_all[one]]
            refused += ["language_sampling"] * (variant.get("language_sampling") == "ucb")
            if refused:
                raise InputError(
                    f"The variant {name} sets {refused[0]} to {_text(variant[refused[0]]) or 'nothing'}, which continual learning "
                    "cannot have; leave the setting out, or the regimes with continual learning."
                )

    def _checked(self, name: str, value: Any) -> Any:
        """A setting whose mapping is by language; other mappings become JSON, as scripts read them."""
        by_language = isinstance(value, dict) and not {ENGLISH, *self.languages}.isdisjoint(value)
        parts = value.values() if by_language else value if isinstance(value, list) else ()
        inner = [one for part in parts for one in (part if by_language and isinstance(part, list) else [part])]
        if not re.fullmatch(r"[\w-]+", name):
            raise InputError(f"The setting {name!r} has not the name of an argument; see --help of its script.")
        if any(isinstance(one, dict | list) for one in inner):
            raise InputError(f"The setting {name} has values inside of values; give one, a list, or one per language.")
        return json.dumps(value) if isinstance(value, dict) and not by_language else value

    def settings_of(self, *names: str) -> dict[str, Any]:
        """The settings under these names together; the last ones win."""
        return {name: value for of in names for name, value in self.settings.get(of, {}).items()}

    def uses(self, name: str) -> bool:
        """Whether there are settings under this name, and runs that they are for."""
        task = name.removesuffix("_translated")
        is_run = task not in GRID_TASKS or task in self.tasks
        return bool(self.settings_of(name)) and is_run and (task == name or TRANSLATED in self.regimes)

    @property
    def first_task(self) -> str | None:
        """The first task that models are fine-tuned for."""
        return next((task for task in self.tasks if task in TASKS), None)

    @property
    def arms(self) -> dict[str, Arm]:
        """What is fine-tuned, by name."""
        arms = (
            Arm(regime, variant)
            for regime in self.regimes
            for variant in (self.variants if REGIMES[regime].aligns and self.variants else [""])
        )
        return {arm.name: arm for arm in arms}

    @property
    def rows(self) -> dict[str, Arm]:
        """The rows of the report, by name."""
        arms = self.arms
        adjusted = (Arm(ADJUSTED, arm.variant) for arm in arms.values() if REGIMES[arm.regime].starts_adjusted)
        # (These are measured even where none is fine-tuned plainly.)
        originals = [Arm(ORIGINAL, way) for way in (self.ways if WORDS in self.tasks else [""])]
        measured = {arm.name: arm for arm in (*originals, *adjusted)}
        if FORGETTING not in self.tasks:
            return measured | arms
        ways = [arm._replace(variant=way) for arm in arms.values() for way in self.ways_of(arm)]
        before = [arm._replace(is_before=True) for arm in measured.values()]
        return measured | {arm.name: arm for arm in (*arms.values(), *ways, *before)}

    @property
    def ways(self) -> list[str]:
        """The ways in which word retrieval is measured: that of the settings of align (empty), and variants with other ones."""
        used = dict.fromkeys(arm.variant for arm in self.arms.values())
        return list(dict.fromkeys(["", *map(self.way_of, used)]))

    def way_of(self, variant: str) -> str:
        """The way in which a variant is measured: the first variant in the same way; empty if that of align's settings is the same."""
        ways = [_representation(self._measuring(name)) for name in ("", *self.variants)]
        of_variant = ways[["", *self.variants].index(variant)]
        return ["", *self.variants][ways.index(of_variant)]

    def ways_of(self, arm: Arm) -> list[str]:
        """The ways in which the fine-tuned models of an arm are measured: all, where it has nothing to do with a variant."""
        return [self.way_of(arm.variant)] if REGIMES[arm.regime].aligns else self.ways

    def settings_of_way(self, way: str) -> dict[str, Any]:
        """The arguments that measure in a way, beside those of align."""
        return {name: value for name, value in self.variants.get(way, {}).items() if name in _USUAL_REPRESENTATION}

    def _measuring(self, variant: str) -> dict[str, Any]:
        return self.settings_of("parallel", "align") | self.settings_of_way(variant)

    def about(self, language: str | None) -> list[str]:
        """The languages of a model; None stands for all at once."""
        return self.languages if language is None else [language]


def _text(value: Any) -> str:
    """A setting as text: empty if it is not given."""
    values = value if isinstance(value, list) else [value]
    return " ".join(str(one) for one in values if one not in UNSET)


def _representation(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The layer and the vectors with which word retrieval is measured by these settings: of several layers the highest."""
    chosen = {name: settings.get(name) for name in _USUAL_REPRESENTATION}
    layer, pooling = (
        usual if chosen[name] in UNSET else chosen[name] for name, usual in _USUAL_REPRESENTATION.items()
    )
    layers = [int(word) for word in re.findall(r"-?\d+", str(layer))]
    if -1 in layers or len({one < 0 for one in layers}) == 1:
        layers = [max(layers, key=lambda one: (one == -1, one))]
    return (*map(str, sorted(layers)), str(pooling))
