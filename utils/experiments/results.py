"""The results of the runs of a grid, read and compared."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

from utils.core.files import read_json_object
from utils.core.records import ALIGNMENT, read_record
from utils.experiments.arms import (
    ABLATION,
    ADJUSTED,
    ADJUSTED_CONTINUAL,
    FORGETTING,
    FURTHER,
    MEASURED,
    ORIGINAL,
    REGIMES,
    WORDS,
    XSR,
    Arm,
    language_of,
)
from utils.experiments.comparison import Comparison, ComparisonTable, compare, judge
from utils.experiments.comparison_tables import metric_name
from utils.experiments.evaluated_sets import RETRIEVAL, TITLES, is_number
from utils.experiments.finished_runs import FinishedRun, System, check_same_data, read_runs
from utils.experiments.grid import Grid
from utils.experiments.marks import check_done, find_done
from utils.experiments.plan import Run
from utils.parallel.sides import ENGLISH
from utils.tasks.registry import TASKS


# The parts of a report: title, and the metric that it is reported by. QA has two, in one language and across languages.
_ACROSS = "-cross"
PARTS = {name: (spec.title, spec.selection_metric) for name, spec in TASKS.items()}
PARTS |= {name: (further.title, TASKS[further.task].selection_metric) for name, further in FURTHER.items()}
PARTS |= {f"{name}{_ACROSS}": (f"{PARTS[name][0]} across languages", PARTS[name][1]) for name in ("qa", "mlqa")}
PARTS[XSR] = (TITLES[RETRIEVAL], "accuracy")
PARTS[WORDS] = (TITLES[ALIGNMENT], "word_retrieval_accuracy")
PARTS[FORGETTING] = (f"{TITLES[ALIGNMENT]} before and after fine-tuning", "word_retrieval_accuracy")
# The kinds of runs that a part consists of, if not of those with its name.
_KINDS = {WORDS: (WORDS, "align"), FORGETTING: (FORGETTING, WORDS, "align")}


def original_for(grid: Grid, part: str, name: str) -> str:
    """The name of the arm of the original model that an arm is compared with: it is measured in the same way."""
    return Arm(ORIGINAL, grid.way_of(grid.rows[name].variant) if part in MEASURED else "").name


def arms_with_baselines(grid: Grid, part: str) -> Iterator[tuple[str, str]]:
    """The names of arms and of those that they are compared with: the original, other regimes, the first variant."""
    rows = grid.rows
    yield from (
        (name, original_for(grid, part, name))
        for name, arm in rows.items()
        if arm.regime != ORIGINAL and not arm.is_before
    )
    first, *others = grid.variants or [""]
    for variant in (first, *others):
        continual, adjusted, ablation = (
            Arm(regime, variant).name for regime in (ADJUSTED_CONTINUAL, ADJUSTED, ABLATION)
        )
        yield from ((continual, adjusted), (continual, ablation))
    yield from ((Arm(ADJUSTED, variant).name, Arm(ADJUSTED, first).name) for variant in others)
    yield from ((arm._replace(is_before=False).name, name) for name, arm in rows.items() if arm.is_before)


@dataclass
class Results:
    """The results of a grid. A *part* is a task, or questions across languages (`qa-cross`)."""

    grid: Grid
    missing: dict[str, str]  # name of a run → why there is no result
    n_resamples: int
    alpha: float = 0.05  # level of significance over all comparisons
    n_comparisons: int = 0  # that p-values are adjusted for
    # Part → arm → language or pair of languages → score of every seed, 0 to 1; in English the mean over the languages' models.
    scores: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    n_examples: dict[str, dict[str, int]] = field(default_factory=dict)  # part → language
    # (Part, arm, baseline) → language.
    comparisons: dict[tuple[str, str, str], dict[str, Comparison]] = field(default_factory=dict)
    # Part → arm and baseline that are not compared, since words were retrieved in other layers or by other vectors.
    not_compared: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    tables: list[ComparisonTable] = field(default_factory=list)  # all comparisons in full
    runs: list[FinishedRun] = field(default_factory=list)  # those that were compared, named by their arms
    # Arm → language and measure → mean over seeds and directions, 0 to 1, in the highest layer that was measured.
    retrieval: dict[str, dict[str, float]] = field(default_factory=dict)
    retrieval_layers: list[int] = field(default_factory=list)  # these layers, usually one
    vocabulary: dict[str, dict[str, float]] = field(default_factory=dict)  # language → fit of the vocabulary
    distances: dict[str, dict[str, Any]] = field(default_factory=dict)  # language → results of `run_distances.py`


def title_with_metric(part: str) -> str:
    """A part of the grid and its metric, such as `Question answering, F1`."""
    title, metric = PARTS[part]
    return f"{title}, {metric_name(metric)}"


def read_results(
    grid: Grid, runs: Sequence[Run], output_dir: Path, missing: Mapping[str, str], n_resamples: int = 10_000
) -> Results:
    """Read the runs of a plan that are done, and compare them; `missing` names those that failed, and why."""
    results = Results(grid, dict(missing), n_resamples)
    names = find_done(runs, output_dir)
    done = [run for run in runs if run.name in names]
    for run in runs:
        if run.name not in names and run.name not in missing:
            # (What is marked as done all the same is older than what it needs.)
            again = "to be repeated, since a run that it needs has been, or will be"
            results.missing[run.name] = again if check_done(run, output_dir) else "not run yet"
    for task in grid.tasks:
        planned = [run for run in done if run.task in _KINDS.get(task, (task,))]
        if not planned:
            continue
        found_of_task = _read(task, planned, runs, grid, output_dir)
        results.runs += _named_for_an_archive(task, found_of_task, grid)
        if task == XSR:
            results.retrieval, results.retrieval_layers = _retrieval(found_of_task)
        for part, found in _parts(task, found_of_task):
            metric = PARTS[part][1]
            results.scores[part] = _scores(found, metric)
            results.n_examples[part] = {name: one.n_examples for *_, run in found for name, one in run.sets.items()}
            for regime, baseline in arms_with_baselines(grid, part):
                runs_of_both, baselines = _beside(found, regime, baseline)
                if baselines and _measured_alike(runs_of_both):
                    table = compare(runs_of_both, baselines, [metric], n_resamples, alpha=results.alpha)
                    results.tables.append(table)
                    results.comparisons[part, regime, baseline] = {row.language: one for row, one in table.compared}
                elif baselines:
                    results.not_compared.setdefault(part, []).append((regime, baseline))
    results.n_comparisons = judge(results.tables)
    for run in done:
        if run.task == "align":
            results.vocabulary |= (
                read_record(output_dir / run.name / "run.json", "start again").get("vocabulary") or {}
            )
        if run.task == "distances" and run.language:
            folder = output_dir / run.name
            remedy = f"remove the folder {folder}, and start again"
            numbers = read_json_object(folder / "all_results.json", remedy)
            results.distances[run.language] = {name: one for name, one in numbers.items() if is_number(one)}
    return results


# Name of the arm, language that it is about (None: all), and the run.
_Found = tuple[str, str | None, FinishedRun]


def _read(task: str, planned: Sequence[Run], runs: Sequence[Run], grid: Grid, output_dir: Path) -> list[_Found]:
    """The finished runs, with the cells of the grid that they are for."""
    folders = {str((output_dir / run.name).resolve()): run for run in planned}
    finished = read_runs([str(output_dir / run.name) for run in planned])
    check_same_data(finished)
    adjusted = {(output_dir / run.name).resolve(): run.regime for run in runs if run.task == "align"}
    found = []
    for run in finished:
        place = Path(run.folder).resolve()
        of = folders.get(str(place)) or folders[str(place.parent)]  # (each model has a folder in that of run_xsr.py)
        regime = of.regime or _measured_arm(adjusted, place)
        if task == FORGETTING != of.task:
            regime = grid.rows[regime]._replace(is_before=True).name
        if grid.variants or task == FORGETTING:  # (which the names of systems may not distinguish)
            run = replace(run, system=System(grid.rows[regime].title, run.system.regime))
        found.append((regime, of.language if of.regime != ORIGINAL else None, run))
    return found


def _named_for_an_archive(task: str, found: Sequence[_Found], grid: Grid) -> list[FinishedRun]:
    """The runs, each once, with the titles of their arms if a grid has variants, which records may not distinguish."""
    named = []
    for name, _, run in found:
        arm = grid.rows[name]
        if task == FORGETTING and arm.is_before:  # (once more)
            continue
        # (The layer, in which the same model was measured, is known of every run.)
        title = (arm if REGIMES[arm.regime].aligns else arm._replace(variant="")).title
        end = f", fine-tuned ({grid.first_task})" if task == FORGETTING else ""
        named.append(replace(run, title=title + end if grid.variants else ""))
    return named


# What run_xsr.py reports besides the accuracy by its first distance: end of the name → column.
_MEASURES = {"_csls_accuracy": "CSLS", "_centered_accuracy": "centered", "_mexa": "MEXA"}


def _retrieval(found: Sequence[_Found]) -> tuple[dict[str, dict[str, float]], list[int]]:
    """Other measures of retrieval: arm → `hi, CSLS` → mean over directions and seeds, in the highest layer that was measured;
    and these layers."""
    values: dict[str, dict[str, list[float]]] = {}
    highest = set()
    for arm, _, run in found:
        numbers = read_json_object(Path(run.folder) / "all_results.json", "start again")
        layers = {int(match[1]) for name in numbers if (match := re.search(r"_layer(\d+)_mexa$", name))}
        for name, value in numbers.items():
            for end, title in _MEASURES.items():
                where = name.removesuffix(f"_layer{max(layers, default=0)}{end}")
                if where != name:
                    highest.add(max(layers, default=0))
                    values.setdefault(arm, {}).setdefault(f"{language_of(where)}, {title}", []).append(value)
    means = {arm: {name: mean(of_name) for name, of_name in of_arm.items()} for arm, of_arm in values.items()}
    return means, sorted(highest)


def _measured_arm(adjusted: Mapping[Path, str | None], folder: Path) -> str:
    """The arm of a model that was only measured: that of its adjustment, by the folders of adjusted models."""
    model = read_record(folder / "run.json", "start again").get("base_model")
    return adjusted.get(Path(str(model)).resolve()) or ORIGINAL


def _parts(task: str, found: Sequence[_Found]) -> Iterator[tuple[str, list[_Found]]]:
    """A task by its parts: for QA questions in one language, and across languages."""
    if f"{task}{_ACROSS}" not in PARTS:
        yield task, list(found)
        return
    for part, across in ((task, False), (f"{task}{_ACROSS}", True)):
        of_part = [
            (regime, language, run.only(name for name in run.sets if (language_of(name) != name) == across))
            for regime, language, run in found
        ]
        if any(run.sets for *_, run in of_part):
            yield part, of_part


def _scores(found: Sequence[_Found], metric: str) -> dict[str, dict[str, list[float]]]:
    """By arm and language the score of every seed: a seed has several models where each language has its own, measured in
    English, too."""
    of_seeds: dict[str, dict[str, dict[int | None, list[float]]]] = {}
    for regime, _, run in found:
        for language, one in run.sets.items():
            of_seed = of_seeds.setdefault(regime, {}).setdefault(language, {}).setdefault(run.seed, [])
            of_seed.append(one.results[metric])
    return {
        regime: {language: [mean(values) for values in seeds.values()] for language, seeds in of_regime.items()}
        for regime, of_regime in of_seeds.items()
    }


def _beside(found: Sequence[_Found], regime: str, baseline: str) -> tuple[list[FinishedRun], dict[System, System]]:
    """The runs of a regime, each in its own language, beside those of the baseline, and which is whose baseline; none if either
    is missing."""
    runs: list[FinishedRun] = []
    baselines: dict[System, System] = {}
    bases = [(language, run) for which, language, run in found if which == baseline]
    for which, language, run in found:
        others = [other for of, other in bases if of in (None, language)]
        if which == regime and others:
            baselines[run.system] = others[0].system
            runs.append(_without_english(run, language))
    runs += [_without_english(other, language) for language, other in bases] if runs else []
    return [run for run in runs if run.sets], baselines


def _measured_alike(runs: Iterable[FinishedRun]) -> bool:
    """Whether in every language all runs were measured in the same layer and by the same vectors."""
    first: dict[str, dict[str, Any]] = {}
    return all(
        one.representation == first.setdefault(name, one.representation)
        for run in runs
        for name, one in run.sets.items()
    )


def _without_english(run: FinishedRun, language: str | None) -> FinishedRun:
    """The run with the sets of its language (of all if None), but not that of English alone."""
    return run.only(name for name in run.sets if name != ENGLISH and language in (None, language_of(name)))
