#!/usr/bin/env python
"""The paper's experiments from one file: adjust, fine-tune, measure in all languages, compare, report.

    python replicate.py replicate.yaml
    python replicate.py replicate-small.yaml --jobs 2 --override nli.max_train_samples=2000

Every run of the grid (languages × tasks × regimes × seeds) is one of the ordinary scripts, started by `accelerate
launch`; --dry_run prints them. What is done is skipped, what was cut off goes on from its last checkpoint, a run that
fails does not stop the others: start the same command again whenever it was interrupted. In the end there is a report
(report.html, report.md) that says which of the paper's findings are seen, and how sure that is.
"""

import signal
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from utils.core.arguments import arg, at_least, parse_arguments, require
from utils.core.errors import InputError, run_script
from utils.core.files import write_json
from utils.core.records import run_record
from utils.experiments.grid import FINE_TUNED, REGIMES, TASKS, Grid, plan
from utils.experiments.report import write_report
from utils.experiments.results import read_results
from utils.experiments.runner import alone_in, as_typed, carry_out, check_done, command


_MAPPING = "Settings of {} as a mapping: its arguments by name."
_BY_LANGUAGE = " A value that is a mapping itself is by language."


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
    tasks: list[str] = arg(default_factory=lambda: list(TASKS), help=f"Of {', '.join(TASKS)}.")
    regimes: list[str] = arg(
        default_factory=lambda: list(REGIMES),
        help=f"Of {', '.join(REGIMES)}. The last one is the ablation --alignment_weight 0.",
    )
    seeds: list[int] = arg(default_factory=lambda: [1, 2, 3, 4, 5], help="Every run is done once with each.")
    joint: bool = arg(
        False,
        help="Have one model adjusted to all languages at once, instead of the paper's one for each: less than a third "
        "of the runs.",
    )
    cross_lingual: list[str] = arg(
        default_factory=list, help="Languages for which questions are also asked across: hi about en, en about hi."
    )
    parallel: str = arg("{}", help="Parallel pairs and word links, as run_align.py has them." + _BY_LANGUAGE)
    align: str = arg("{}", help=_MAPPING.format("run_align.py") + _BY_LANGUAGE)
    continual: str = arg("{}", help=_MAPPING.format("continual learning"))
    nli: str = arg("{}", help=_MAPPING.format("run_nli.py") + _BY_LANGUAGE)
    ner: str = arg("{}", help=_MAPPING.format("run_ner.py") + _BY_LANGUAGE)
    qa: str = arg("{}", help=_MAPPING.format("run_qa.py") + _BY_LANGUAGE)
    xsr: str = arg("{}", help=_MAPPING.format("run_xsr.py") + _BY_LANGUAGE)
    distances: str | None = arg(
        None, help=_MAPPING.format("run_distances.py") + " Without it, what was learned and forgotten is not measured."
    )
    launch: str = arg("{}", help=_MAPPING.format("accelerate launch"))
    override: list[str] = arg(
        default_factory=list,
        help="Single settings that win over the file: `nli.max_train_samples=2000 launch.mixed_precision=bf16`.",
    )
    jobs: int = arg(1, help="Runs at a time: they share the cores, and have a GPU each if there are several.")
    keep_models: bool = arg(
        False, help="Keep the weights of fine-tuned models when all is measured (adjusted ones are always kept)."
    )
    n_resamples: int = arg(10_000, help="Bootstrap resamples of the comparisons.")
    dry_run: bool = arg(False, help="Print the commands that are still to be run, and stop.")
    report_only: bool = arg(False, help="Run nothing; report on what is done so far.")

    def __post_init__(self) -> None:
        for name, known in (("tasks", TASKS), ("regimes", REGIMES)):
            if unknown := [value for value in getattr(self, name) if value not in known]:
                raise InputError(f"--{name} {unknown[0]} is none of {', '.join(known)}.")
            setattr(self, name, list(dict.fromkeys(getattr(self, name))))
        require(self.languages, ["--languages"], "name the languages that the model is adjusted to")
        require(self.seeds, ["--seeds"], "give one or more, such as 1 2 3")
        at_least(1, self, "jobs")
        at_least(100, self, "n_resamples")
        self.languages, self.seeds = list(dict.fromkeys(self.languages)), list(dict.fromkeys(self.seeds))

    def grid(self) -> Grid:
        """The grid, with what --override says.

        Raises:
            InputError: for settings that are no mapping, or an --override of something that is none.
        """
        settings = {name: _mapping(name, getattr(self, name)) for name in _MAPPINGS}
        for word in self.override:
            place, equals, value = word.partition("=")
            group, dot, name = place.partition(".")
            if not equals or not dot or group not in settings:
                raise InputError(
                    f"--override {word} is not of the form GROUP.ARGUMENT=VALUE, with a group of {', '.join(_MAPPINGS)}."
                )
            settings[group] = {**(settings[group] or {}), name: yaml.load(value, Loader=yaml.BaseLoader)}
        return Grid(
            self.model_name_or_path,
            self.languages,
            self.seeds,
            [task for task in TASKS if task in self.tasks],
            [regime for regime in REGIMES if regime in self.regimes],
            self.joint,
            self.cross_lingual,
            task_settings={task: settings.pop(task) for task in TASKS},
            **settings,
        )


_MAPPINGS = ("parallel", "align", "continual", *FINE_TUNED, "xsr", "distances", "launch")


def _mapping(name: str, text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        found = yaml.load(text, Loader=yaml.BaseLoader) or {}
    except yaml.YAMLError as error:
        raise InputError(f"--{name} is no YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(found, dict):
        raise InputError(f"--{name} must map arguments to values, like `{{max_train_samples: 1000}}`; it is {text}.")
    return found


def main() -> None:
    # --- Arguments ---
    (args,) = parse_arguments(ReplicateArguments, description=__doc__)
    output_dir = Path(args.output_dir)
    if args.model_name_or_path == "sample-model" and not Path("sample-model").is_dir():
        from data.sample_model import sample_model

        args.model_name_or_path = sample_model()
    grid = args.grid()

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
            raise SystemExit("Interrupted; the same command goes on.") from None

    # --- Report ---
    # (--report_only does not wait for a grid that is at work: it tells what is done so far.)
    with nullcontext() if args.report_only else alone_in(output_dir):
        record = run_record([args])
        results = read_results(grid, runs, output_dir, failed, args.n_resamples)
        report = write_report(results, output_dir, conditions(args, grid, record))
        write_json(output_dir / "run.json", record)
    print(report.read_text(encoding="utf-8").split("\n## ")[0])
    print(f"The whole report: {output_dir / 'report.html'}")
    if failed:
        raise InputError(f"{len(failed)} of {len(runs)} runs failed or could not be started; the report names them.")


def conditions(args: ReplicateArguments, grid: Grid, record: dict[str, Any]) -> dict[str, str]:
    """What a reader must know of how the numbers came about; nothing in it changes from one start to the next."""
    told = {
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
    return {name: text for name, text in told.items() if text}


def _settings(settings: dict[str, Any]) -> str:
    """Settings in a line, without folders, which are nobody else's business."""

    def shown(value: Any) -> str:  # noqa: ANN401
        if isinstance(value, dict):
            return ", ".join(f"{key}={Path(str(one)).name}" for key, one in value.items())
        if isinstance(value, list):
            return " ".join(map(shown, value))
        return Path(str(value)).name if Path(str(value)).exists() else str(value)

    return "; ".join(f"{name} {shown(value)}" for name, value in settings.items()) or "the scripts' defaults"


if __name__ == "__main__":
    run_script(main)
