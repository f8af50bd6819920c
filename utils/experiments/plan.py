"""A grid as runs of the ordinary scripts: which runs there are, and in which order."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from utils.experiments.arms import ADJUSTED, FORGETTING, FURTHER, ORIGINAL, REGIMES, TRANSLATED, WORDS, XSR, Arm
from utils.experiments.grid import UNSET, Grid
from utils.parallel.sides import ENGLISH, directions
from utils.tasks.registry import TASKS


# `accelerate launch` would guess these, with a warning each time.
LAUNCH = {"num_processes": "1", "num_machines": "1", "mixed_precision": "no", "dynamo_backend": "no"}
# Settings of `accelerate launch` that say where the processes run and what they log; all others may change what is computed.
_PLACES = {
    "cpu", "debug", "deepspeed_exclusion_filter", "deepspeed_hostfile", "deepspeed_inclusion_filter", "deepspeed_multinode_launcher",
    "enable_cpu_affinity", "gpu_ids", "log_dir", "machine_rank", "main_process_ip", "main_process_port", "max_restarts",
    "monitor_interval", "mpirun_hostfile", "multi_gpu", "num_cpu_threads_per_process", "quiet", "rdzv_backend", "rdzv_conf", "role",
    "same_network", "tee",
}  # fmt: skip


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
    # Words for `accelerate launch`, as far as they may change what is computed.
    launch: list[str] = field(default_factory=list)


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
    launch = {**LAUNCH, **grid.settings_of("launch")}
    of_results = as_words({name: launch[name] for name in sorted(launch) if name not in _PLACES}, [])
    return [replace(run, launch=of_results) for run in runs]


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


# What continual learning has as well, but of its own: how many pairs, how they are prepared, and what is written. (Which are
# romanized is that of the task's examples, too: see `Grid`.)
_OF_ADJUSTMENT = {"max_train_pairs", "min_dictionary_count", "preprocessing_num_workers", "romanize", "write_dictionary",
                  "write_links"}  # fmt: skip


def _of_continual(variant: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a variant that continual learning takes as well: on which pairs and links, what is aligned, and how.

    (How an adjustment is trained, its learning rate for example, is no setting of the fine-tuning.)
    """
    if not variant:
        return {}
    from utils.tasks.arguments import (  # (it imports torch, which takes long)
        AlignerArguments,
        ContinualArguments,
        ContinualDataArguments,
    )

    groups = (ContinualArguments, ContinualDataArguments, AlignerArguments)
    names = {item.name for group in groups for item in fields(group)} - _OF_ADJUSTMENT
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
        if values and values[0] not in UNSET:
            words += [f"--{name}", *map(str, values)]
    return words
