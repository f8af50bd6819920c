"""The paper's grid as runs of the ordinary scripts: which runs there are, and in which order."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
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
    XSR,
    Arm,
)
from utils.models.hub import MBERT
from utils.parallel.sides import ENGLISH, directions
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
_UNSET = (None, "", "~", "null")
# Arguments that say with which vectors word retrieval is measured, and their defaults.
_USUAL_REPRESENTATION = {"alignment_layer": -1, "word_pooling": "avg"}
# Arguments that say on which pairs and links; the original and all variants are measured on the same ones.
_OF_HELD_OUT_PAIRS = ("anchor_language", "include_special_tokens", "max_eval_pairs", "max_seq_length", "max_words", "romanize",
                      "validation_file", "validation_links_file", "validation_split", "validation_split_percentage",
                      "word_splitting")  # fmt: skip


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
    joint: bool = arg(
        False,
        help="Adjust one model to all languages at once, instead of the paper's one model for each: less than a third of "
        "the runs.",
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
        of_groups = [of_group for of_group in self.settings.values() if isinstance(of_group, dict)]
        tokens = {str(of_group.pop(name)) for of_group in of_groups for name in list(of_group) if is_secret(name)}
        note_secrets({"token": list(tokens)})
        if len(tokens) > 1:
            raise InputError("The settings of the scripts have different tokens; give one, or set HF_TOKEN.")
        self.token = tokens.pop() if tokens else self.token
        for of_group in of_groups:
            for name, value in of_group.items():
                of_group[name] = self._checked(name, value)
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


@dataclass
class Run:
    """A run of a script, for a cell of the grid: regime, language and seed are None where it is for all."""

    name: str  # its folder among the outputs
    script: str  # file name
    arguments: list[str]  # words of its command line, without the output folder; `{NAME}`: the folder of another run
    needs: list[str]  # names of the runs that must be done before
    task: str  # one of `GRID_TASKS`, or `align` or `distances`
    regime: str | None = None  # name of an arm
    language: str | None = None
    seed: int | None = None


def plan(grid: Grid) -> list[Run]:
    """All runs of a grid: runs that others need come before them, and all runs of a seed before the next seed."""
    runs = [_word_retrieval(grid, way) for way in grid.ways] if WORDS in grid.tasks else []
    for seed in grid.seeds:
        runs += [_adjustment(grid, variant, language, seed) for variant, language in _adjusted_models(grid)]
        for task in grid.tasks:
            if task in TASKS:
                runs += _fine_tunings(grid, task, seed)
            elif task in FURTHER:
                runs += _further_evaluations(grid, task, seed)
            elif task == FORGETTING:
                runs += _forgettings(grid, seed)
    if XSR in grid.tasks:
        runs += [_retrieval(grid, language) for language in grid.languages]
    if "distances" in grid.settings:
        runs += [_distances(grid, language) for language in grid.languages]
    return runs


def _adjusted_to(grid: Grid) -> list[str | None]:
    """The language of every adjusted model of a seed; None stands for all languages at once."""
    return [None] if grid.joint else list(grid.languages)


def _adjusted_models(grid: Grid) -> list[tuple[str, str | None]]:
    """Variant and language of every adjusted model of a seed."""
    variants = dict.fromkeys(arm.variant for arm in grid.arms.values() if REGIMES[arm.regime].starts_adjusted)
    return [(variant, language) for variant in variants for language in _adjusted_to(grid)]


def _adjusted(grid: Grid, variant: str, language: str | None, seed: int) -> str:
    return "align/" + "-".join(filter(None, [variant, "joint" if grid.joint else language, f"seed{seed}"]))


def _word_retrieval(grid: Grid, way: str) -> Run:
    """The original model on the held-out pairs."""
    arguments = _measuring(grid, grid.model_name_or_path, grid.languages, way)
    arm = Arm(ORIGINAL, way).name
    return Run(f"{WORDS}/{arm}", "run_align.py", arguments, [], WORDS, arm)


def _forgettings(grid: Grid, seed: int) -> Iterator[Run]:
    """Every fine-tuned model of the first task on the held-out pairs, measured as the models that it is compared with."""
    for run in _fine_tunings(grid, str(grid.first_task), seed):
        arm = grid.arms[str(run.regime)]
        for way in grid.ways_of(arm):
            name = (arm if REGIMES[arm.regime].aligns else arm._replace(variant=way)).name
            arguments = _measuring(grid, f"{{{run.name}}}", grid.about(run.language), way)
            place = _place(FORGETTING, name, run.language, seed)
            yield Run(place, "run_align.py", arguments, [run.name], FORGETTING, name, run.language, seed)


def _measuring(grid: Grid, model: str, languages: Sequence[str], way: str) -> list[str]:
    """The arguments that measure word retrieval of a model, compared with the original one."""
    settings = {"reference_model": grid.model_name_or_path, **grid.settings_of("parallel", "align")}
    settings |= grid.settings_of_way(way)
    return ["--model_name_or_path", model, "--languages", *languages, *as_words(settings, languages)]


def _representation(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The layer and the vectors with which word retrieval is measured by these settings: of several layers the highest."""
    chosen = {name: settings.get(name) for name in _USUAL_REPRESENTATION}
    layer, pooling = (
        usual if chosen[name] in _UNSET else chosen[name] for name, usual in _USUAL_REPRESENTATION.items()
    )
    layers = [int(word) for word in re.findall(r"-?\d+", str(layer))]
    if -1 in layers or len({one < 0 for one in layers}) == 1:
        layers = [max(layers, key=lambda one: (one == -1, one))]
    return (*map(str, sorted(layers)), str(pooling))


def _adjustment(grid: Grid, variant: str, language: str | None, seed: int) -> Run:
    settings = {"save_total_limit": 1, **grid.settings_of("parallel", "align"), **grid.variants.get(variant, {})}
    languages = grid.about(language)
    arguments = ["--model_name_or_path", grid.model_name_or_path, "--languages", *languages, "--do_train"]
    arguments += [*as_words(settings, languages), "--seed", str(seed)]
    regime = Arm(ADJUSTED, variant).name
    return Run(
        _adjusted(grid, variant, language, seed), "run_align.py", arguments, [], "align", regime, language, seed
    )


def _fine_tunings(grid: Grid, task: str, seed: int) -> Iterator[Run]:
    """A run for every arm and language; one for all languages where nothing depends on them."""
    for arm in grid.arms.values():
        for language in _languages_of(grid, arm, task):
            about = grid.about(language)
            starts_adjusted = REGIMES[arm.regime].starts_adjusted
            needs = [_adjusted(grid, arm.variant, language, seed)] if starts_adjusted else []
            model = f"{{{needs[0]}}}" if needs else grid.model_name_or_path
            arguments = ["--model_name_or_path", model, "--do_train", *_sets(grid, task, about)]
            settings = _settings_of_task(grid, arm, task, language)
            arguments += [*as_words(settings, [ENGLISH, *about]), "--seed", str(seed)]
            place = _place(task, arm.name, language, seed)
            yield Run(place, f"run_{task}.py", arguments, needs, task, arm.name, language, seed)


def _place(task: str, arm: str, language: str | None, seed: int) -> str:
    """The name of the run of a fine-tuned model."""
    return f"{task}/{'-'.join(filter(None, (arm, language)))}-seed{seed}"


def _languages_of(grid: Grid, arm: Arm, task: str) -> list[str | None]:
    """The languages that the fine-tunings of an arm are about, one each; None stands for all at once."""
    if arm.regime == TRANSLATED:
        return list(grid.languages) if f"{task}_translated" in grid.settings else []
    return [None] if arm.regime == ORIGINAL else _adjusted_to(grid)


def _settings_of_task(grid: Grid, arm: Arm, task: str, language: str | None) -> dict[str, Any]:
    settings = {"save_total_limit": 1, **grid.settings_of(task)}
    continual = REGIMES[arm.regime].continual
    if continual is not None:
        settings |= {
            "continual": "true",
            "languages": grid.about(language),
            **grid.settings_of("parallel", "continual"),
        }
        settings |= _of_continual(grid.variants.get(arm.variant, {}))
        settings |= continual
    elif arm.regime == TRANSLATED:
        of_language = grid.settings_of(f"{task}_translated").items()
        settings |= {"train_language": language}
        settings |= {k: v.get(language) if isinstance(v, dict) else v for k, v in of_language}
    return settings


def _of_continual(variant: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a variant that continual learning takes as well."""
    if not variant:
        return {}
    from utils.alignment.objectives import AlignmentArguments  # (it imports torch, which takes long)

    names = {item.name for item in fields(AlignmentArguments)}
    return {name: value for name, value in variant.items() if name in names}


def _further_evaluations(grid: Grid, task: str, seed: int) -> Iterator[Run]:
    """Each fine-tuned model of a task on another data set, as far as that has the languages."""
    further = FURTHER[task]
    for run in _fine_tunings(grid, further.task, seed):
        if about := [language for language in grid.about(run.language) if language in further.languages]:
            settings = {**further.settings, **grid.settings_of(task)}
            arguments = ["--model_name_or_path", f"{{{run.name}}}", *_sets(grid, task, about)]
            arguments += as_words(settings, [ENGLISH, *about])
            name = f"{task}/{run.name.partition('/')[2]}"
            yield Run(name, run.script, arguments, [run.name], task, run.regime, run.language, seed)


def _sets(grid: Grid, task: str, languages: Sequence[str]) -> list[str]:
    """What a task is evaluated on: English, the languages, and for QA also questions across languages."""
    if task not in ("qa", "mlqa"):
        return ["--eval_languages", ENGLISH, *languages]
    across = [pair for one in languages if one in grid.cross_lingual for pair in directions(one)]
    return ["--language_pairs", *(f"{one}-{one}" for one in (ENGLISH, *languages)), *across]


def _measured(grid: Grid, language: str, seeds: Sequence[int]) -> list[str]:
    """The adjusted models that retrieval or distances in a language are measured with."""
    variants = [variant for variant, of in _adjusted_models(grid) if of in (None, language)]
    with_adjusted = ADJUSTED in grid.regimes
    return [_adjusted(grid, variant, language, seed) for seed in seeds for variant in variants if with_adjusted]


def _retrieval(grid: Grid, language: str) -> Run:
    needs = _measured(grid, language, grid.seeds)
    models = [grid.model_name_or_path, *(f"{{{name}}}" for name in needs)]
    arguments = ["--models", *models, "--eval_languages", language]
    arguments += as_words(grid.settings_of(XSR), [language])
    return Run(f"{XSR}/{language}", "run_xsr.py", arguments, needs, XSR, None, language)


def _distances(grid: Grid, language: str) -> Run:
    """Of the first seed: the original and the adjusted model, and the models fine-tuned for the first task."""
    seed = grid.seeds[0]
    needs = _measured(grid, language, [seed])
    if task := grid.first_task:
        needs += [run.name for run in _fine_tunings(grid, task, seed) if run.language in (None, language)]
    models = [grid.model_name_or_path, *(f"{{{name}}}" for name in needs)]
    arguments = ["--models", *models, "--languages", language]
    arguments += as_words(grid.settings_of("parallel", "distances"), [language])
    return Run(f"distances/{language}", "run_distances.py", arguments, needs, "distances", None, language)


def as_words(settings: Mapping[str, Any], languages: Sequence[str]) -> list[str]:
    """Settings as words of a command line."""
    words = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found = {language: value[language] for language in languages if language in value}
            value = [f"{key}={','.join(one) if isinstance(one, list) else one}" for key, one in found.items()]
        values = value if isinstance(value, list) else [value]
        if values and values[0] not in _UNSET:
            words += [f"--{name}", *map(str, values)]
    return words
