#!/usr/bin/env python
"""The paper's experiments from one file: adjust, fine-tune, measure in all languages, compare, report.

    python replicate.py replicate.yaml
    python replicate.py replicate-small.yaml --jobs 2 --override nli.max_train_samples=2000

Every run of the grid (languages × tasks × regimes × seeds) is one of the ordinary scripts, started by `accelerate
launch`; --dry_run checks and prints the commands. Runs that are done are skipped, interrupted ones resume from their last checkpoint,
and a run that fails does not stop the others: after an interruption start the same command again. In the end there is a
report (report.html, report.md) that says which of the paper's findings were seen, and how certain that is.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, make_dataclass
from pathlib import Path
from typing import Any

from utils.core.arguments import arg, parse_arguments
from utils.core.errors import InputError, run_script
from utils.core.files import write_json
from utils.core.next_steps import say_where
from utils.core.records import run_record
from utils.core.redaction import redact
from utils.core.settings import parse_yaml
from utils.experiments.grid import SETTINGS, Grid, GridArguments
from utils.experiments.marks import find_to_do
from utils.experiments.plan import plan
from utils.experiments.report import write_report
from utils.experiments.results import read_results
from utils.experiments.runner import alone_in, as_typed, carry_out, check_commands, command


@dataclass
class ReplicateArguments:
    """How the grid is carried out."""

    output_dir: str = arg(help="Folder for all runs, their logs, and the report.")
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
    dry_run: bool = arg(False, help="Check and print the commands that are still to be run, and stop.")
    report_only: bool = arg(False, help="Run nothing; report on the runs that are done so far.")


ScriptSettings = make_dataclass(
    "ScriptSettings", [(name, dict | str | None, arg(None, help=f"For {what}.")) for name, what in SETTINGS.items()]
)
ScriptSettings.__doc__ = "Settings of the scripts, as mappings from arguments to values, or to values by language."


def read_settings(texts: Mapping[str, str | None], override: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The settings of the scripts, from their YAML by name, and from `--override`, which wins.

    Raises:
        InputError: for settings that are not a mapping, or an --override of an unknown name.
    """
    settings = {name: _mapping(name, text) for name, text in texts.items() if text is not None}
    for word in override:
        place, equals, value = word.partition("=")
        group, dot, name = place.partition(".")
        if not equals or not dot or group not in SETTINGS:
            raise InputError(f"--override {word} must be GROUP.ARGUMENT=VALUE, with a group of {', '.join(SETTINGS)}.")
        settings.setdefault(group, {})[name] = parse_yaml(value, f"--override {word}")
    return settings


def _mapping(name: str, text: str) -> dict[str, Any]:
    found = parse_yaml(text, f"--{name}") or {}
    if not isinstance(found, dict):
        raise InputError(f"--{name} must map arguments to values, like `{{max_train_samples: 1000}}`; it is {text}.")
    return found


def main() -> None:
    # --- Arguments ---
    chosen, args, of_scripts = parse_arguments(GridArguments, ReplicateArguments, ScriptSettings, description=__doc__)
    output_dir = Path(args.output_dir)
    grid = Grid(**asdict(chosen), settings=read_settings(asdict(of_scripts), args.override))
    if grid.model_name_or_path == "sample-model" and not Path("sample-model").is_dir():
        from data.sample_model import sample_model

        grid.model_name_or_path = sample_model()

    # --- Plan ---
    runs = plan(grid)
    to_do = [] if args.report_only else find_to_do(runs, output_dir)
    check_commands(to_do, output_dir)
    if args.dry_run:
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
        record = run_record([args, grid])
        results = read_results(grid, runs, output_dir, failed, args.n_resamples)
        report = write_report(results, output_dir, conditions(grid, record))
        write_json(output_dir / "run.json", record)
    print(report.read_text(encoding="utf-8").split("\n## ")[0].replace(r"\*", "*"))
    say_where(output_dir, *([["python", *sys.argv]] if failed else []))
    if failed:
        raise InputError(f"{len(failed)} of {len(runs)} runs failed or could not be started; see the report.")


def conditions(grid: Grid, record: dict[str, Any]) -> dict[str, str]:
    """What a reader must know about how the runs were made; the same after every restart."""
    shown = {
        "Model": f"`{Path(grid.model_name_or_path).name}`",
        "Adjusted to": ", ".join(grid.languages) + (", all at once" if grid.joint else ", a model for each"),
        "Seeds": ", ".join(map(str, grid.seeds)),
        **{f"Settings of `{name}`": _settings(grid.settings_of(name)) for name in SETTINGS if grid.uses(name)},
        **{f"Variant `{name}`": _settings(settings) for name, settings in grid.variants.items()},
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
        return Path(str(value)).name if os.path.exists(str(value)) else str(value)

    return "; ".join(f"{name} {shown(value)}" for name, value in redact(settings).items()) or "the scripts' defaults"


if __name__ == "__main__":
    run_script(main)
