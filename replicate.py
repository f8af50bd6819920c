#!/usr/bin/env python
"""The paper's experiments from one file: adjust, fine-tune, measure in all languages, compare, report.

    python replicate.py replicate.yaml
    python replicate.py replicate-small.yaml --jobs 2 --override nli.max_train_samples=2000

Every run of the grid (languages × tasks × regimes × seeds) is one of the ordinary scripts, started by `accelerate
launch`; --dry_run prints the commands. Runs that are done are skipped, interrupted ones resume from their last checkpoint,
and a run that fails does not stop the others: after an interruption start the same command again. In the end there is a
report (report.html, report.md) that says which of the paper's findings were seen, and how certain that is.
"""

import signal
from contextlib import nullcontext
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Any

import yaml

from utils.core.arguments import arg, parse_arguments, require
from utils.core.errors import InputError, run_script
from utils.core.files import write_json
from utils.core.records import run_record
from utils.experiments.grid import GRID_TASKS, PAPER_TASKS, REGIMES, Grid, plan
from utils.experiments.report import write_report
from utils.experiments.results import read_results
from utils.experiments.runner import alone_in, as_typed, carry_out, check_done, command


def _settings_of(script: str, by_language: bool = True) -> str:
    note = " A value that is a mapping itself is by language." if by_language else ""
    return arg("{}", help=f"Settings of {script} as a mapping from arguments to values.{note}")


@dataclass
class ReplicateArguments:
    """The grid, and how it is carried out."""

    output_dir: str = arg(help="Folder for all runs, their logs, and the report.")
    model_name_or_path: str = arg(
        "google-bert/bert-base-multilingual-cased",
        help="The original model; `sample-model`: the small encoder of the quickstart.",
    )
    languages: list[str] = arg(
        default_factory=lambda: ["es", "ru", "vi", "hi"], help="Languages that it is adjusted to, by code."
    )
    tasks: list[str] = arg(
        default_factory=lambda: list(PAPER_TASKS), help=f"Tasks of the grid, of {', '.join(GRID_TASKS)}."
    )
    regimes: list[str] = arg(
        default_factory=lambda: list(REGIMES),
        help=f"Regimes of the grid, of {', '.join(REGIMES)}. The last one is the ablation --alignment_weight 0.",
    )
    seeds: list[int] = arg(default_factory=lambda: [1, 2, 3, 4, 5], help="Every run is repeated with each seed.")
    joint: bool = arg(
        False,
        help="Adjust one model to all languages at once, instead of the paper's one model for each: less than a third of "
        "the runs.",
    )
    cross_lingual: list[str] = arg(
        default_factory=list,
        help="Languages with QA across languages: for hi, Hindi questions about English contexts and vice versa.",
    )
    distances: str | None = arg(
        None, help="Settings of run_distances.py, likewise. Without them no distances are measured."
    )
    override: list[str] = arg(
        default_factory=list,
        help="Single settings that replace those of the file: `nli.max_train_samples=2000 launch.mixed_precision=bf16`.",
    )
    jobs: int = arg(
        1, help="Runs at a time: they share the cores, and have a GPU each if there are several.", at_least=1
    )
    keep_models: bool = arg(
        False, help="Keep the weights of fine-tuned models at the end (those of adjusted models are always kept)."
    )
    n_resamples: int = arg(10_000, help="Bootstrap resamples of the comparisons.", at_least=100)
    dry_run: bool = arg(False, help="Print the commands that are still to be run, and stop.")
    report_only: bool = arg(False, help="Run nothing; report on the runs that are done so far.")

    def __post_init__(self) -> None:
        for name, known in (("tasks", GRID_TASKS), ("regimes", REGIMES)):
            given = getattr(self, name)
            if unknown := [value for value in given if value not in known]:
                raise InputError(f"--{name} {unknown[0]} is unknown; choose from {', '.join(known)}.")
            setattr(self, name, [value for value in known if value in given])
        require(self.languages, ["--languages"], "name the languages that the model is adjusted to")
        require(self.seeds, ["--seeds"], "give one or more, such as 1 2 3")
        self.languages, self.seeds = list(dict.fromkeys(self.languages)), list(dict.fromkeys(self.seeds))


_OF_SCRIPTS = {
    "parallel": _settings_of("parallel pairs and word links in all scripts"),
    "align": _settings_of("run_align.py"),
    "continual": _settings_of("continual learning", by_language=False),
    **{task: _settings_of(f"run_{task}.py") for task in GRID_TASKS},
    "launch": _settings_of("accelerate launch", by_language=False),
}
ScriptSettings = make_dataclass("ScriptSettings", [(name, str, field) for name, field in _OF_SCRIPTS.items()])
ScriptSettings.__doc__ = "The settings of the scripts."


def grid_of(args: ReplicateArguments, of_scripts: Any) -> Grid:  # noqa: ANN401
    """The grid that the arguments describe, with the settings of the scripts (`ScriptSettings`) and of --override.

    Raises:
        InputError: for settings that are not a mapping, or an --override of an unknown group.
    """
    given = {**vars(of_scripts), **({} if args.distances is None else {"distances": args.distances})}
    settings = {name: _mapping(name, text) for name, text in given.items()}
    groups = [*_OF_SCRIPTS, "distances"]
    for word in args.override:
        place, equals, value = word.partition("=")
        group, dot, name = place.partition(".")
        if not equals or not dot or group not in groups:
            raise InputError(f"--override {word} must be GROUP.ARGUMENT=VALUE, with a group of {', '.join(groups)}.")
        settings[group] = {**settings.get(group, {}), name: yaml.load(value, Loader=yaml.BaseLoader)}
    return Grid(
        args.model_name_or_path,
        args.languages,
        args.seeds,
        args.tasks,
        args.regimes,
        args.joint,
        args.cross_lingual,
        parallel=settings["parallel"],
        align=settings["align"],
        continual=settings["continual"],
        distances=settings.get("distances"),
        task_settings={task: settings[task] for task in GRID_TASKS},
        launch=settings["launch"],
    )


def _mapping(name: str, text: str) -> dict[str, Any]:
    try:
        found = yaml.load(text, Loader=yaml.BaseLoader) or {}
    except yaml.YAMLError as error:
        raise InputError(f"--{name} is not YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(found, dict):
        raise InputError(f"--{name} must map arguments to values, like `{{max_train_samples: 1000}}`; it is {text}.")
    return found


def main() -> None:
    # --- Arguments ---
    args, of_scripts = parse_arguments(ReplicateArguments, ScriptSettings, description=__doc__)
    output_dir = Path(args.output_dir)
    if args.model_name_or_path == "sample-model" and not Path("sample-model").is_dir():
        from data.sample_model import sample_model

        args.model_name_or_path = sample_model()
    grid = grid_of(args, of_scripts)

    # --- Plan ---
    runs = plan(grid)
    if args.dry_run:
        to_do = [run for run in runs if not check_done(run, output_dir)]
        for run in to_do:
            print(as_typed(command(run, grid, output_dir)))
        print(f"# {len(to_do)} of {len(runs)} runs are to be done.")
        return

    # --- Run ---
    failed: dict[str, str] = {}
    if not args.report_only:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the runs save a checkpoint
        try:
            failed = carry_out(runs, grid, output_dir, args.jobs, args.keep_models)
        except KeyboardInterrupt:
            raise SystemExit("Interrupted; start the same command again to resume.") from None

    # --- Report ---
    # (--report_only does not wait for another process that carries out the grid.)
    with nullcontext() if args.report_only else alone_in(output_dir):
        record = run_record([args, of_scripts])
        results = read_results(grid, runs, output_dir, failed, args.n_resamples)
        report = write_report(results, output_dir, conditions(grid, record))
        write_json(output_dir / "run.json", record)
    print(report.read_text(encoding="utf-8").split("\n## ")[0])
    print(f"The whole report: {output_dir / 'report.html'}")
    if failed:
        raise InputError(f"{len(failed)} of {len(runs)} runs failed or could not be started; see the report.")


def conditions(grid: Grid, record: dict[str, Any]) -> dict[str, str]:
    """What a reader must know about how the runs were made; the same after every restart."""
    shown = {
        "Model": f"`{Path(grid.model_name_or_path).name}`",
        "Adjusted to": ", ".join(grid.languages) + (", all at once" if grid.joint else ", a model for each"),
        "Seeds": ", ".join(map(str, grid.seeds)),
        "Parallel pairs": _settings(grid.parallel),
        "Adjustment": _settings(grid.align),
        "Continual learning": _settings(grid.continual),
        **{task.upper(): _settings(grid.task_settings[task]) for task in grid.tasks},
        "Versions": ", ".join(f"{name} {version}" for name, version in record["versions"].items()),
        "Commit": f"`{record['git_commit']}`",
    }
    return {name: text for name, text in shown.items() if text}


def _settings(settings: dict[str, Any]) -> str:
    """Settings in one line; of files only the names, not the folders of this machine."""

    def shown(value: object) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{key}={Path(str(one)).name}" for key, one in value.items())
        if isinstance(value, list):
            return " ".join(map(shown, value))
        return Path(str(value)).name if Path(str(value)).exists() else str(value)

    return "; ".join(f"{name} {shown(value)}" for name, value in settings.items()) or "the scripts' defaults"


if __name__ == "__main__":
    run_script(main)
