#!/usr/bin/env python
"""Compare finished runs: mean over seeds, difference from a baseline, and whether it is statistically significant.

    python compare_runs.py runs/nli-* --baseline plain
    python compare_runs.py runs/* --baseline "bert-base-multilingual-cased, plain" --output_dir comparison
    python compare_runs.py docs/results

Reads the output folders of run_align.py, run_xsr.py and the scripts of the tasks: run.json, all_results.json, predictions;
or archives of many runs, which --archive_file writes.
Runs are grouped by task, language, model (with the adjustments that it has gone through) and regime (`plain`,
`continual`, `continual, alignment_weight 0`, …); runs that differ in their seed alone are averaged. No model is run, and no
GPU is needed.

The columns for every system but the baseline:

    mean ± sd    over seeds (there is no sd of one seed)
    difference   from the baseline, in percentage points; * if significant, (*) if significant over examples, but with too few
                 seeds or examples, or too much variation between seeds, to support a claim about the method
    interval     95 % percentile interval of the difference, by the paired bootstrap: of these models, on other examples
    p            of the paired bootstrap: over examples; for tags of words over sentences
    p (seeds)    of a t-test that adds the variation over seeds to that over examples
    p (Holm)     the larger one of both, adjusted for the number of comparisons in the whole table: the one that counts
    t-test       p of the paired t-test over examples, as in Efimov et al. (ECIR 2023)
    McNemar      p of McNemar's test (mid-p), for single runs that are right or wrong

The tests of examples pair them, and average seeds first: they say whether *these* models would differ on other examples.
Whether other seeds would give the same result says p (seeds). Use three seeds or more; with five, smaller differences are found.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from utils.core.arguments import arg, parse_arguments, require
from utils.core.errors import run_script
from utils.core.files import check_output_dir, write_json
from utils.core.next_steps import command, say_where
from utils.core.records import run_record
from utils.experiments.comparison import comparison_table, find_baselines
from utils.experiments.comparison_tables import write_tables
from utils.experiments.finished_runs import check_same_data
from utils.experiments.run_archives import SUFFIX, check_archive_name, read_runs_and_archives, write_archive


@dataclass
class CompareArguments:
    """Which runs, and what they are compared with."""

    runs: list[str] = arg(
        default_factory=list,
        help="Output folders of finished runs, archives of --archive_file, or folders of such; --runs can be omitted if they "
        "come first.",
    )
    baseline: str | None = arg(
        None,
        help="The system that the others are compared with: a regime (`plain`: the baseline of a model is the same model, "
        "plainly fine-tuned), a model (under every regime), both as in the table (`mbert, plain`), or the folder of a run "
        "(its model and regime, with all seeds). Without it the table has means only.",
    )
    metric: list[str] | None = arg(
        None,
        help="Metric(s) to compare: accuracy, f1, exact_match, mrr (sentence retrieval), word_retrieval_accuracy. "
        "Default: all but mrr.",
    )
    output_dir: str = arg("comparison", help="Folder for the table: comparison.md, comparison.csv, comparison.tex.")
    archive_file: str | None = arg(
        None,
        help="Also write all that a comparison needs of these runs (settings, and the score of every example; no texts, no models) "
        f"into one small file, `NAME{SUFFIX}`, which this script reads in place of the folders: to publish, or to keep.",
    )
    overwrite_output_dir: bool = arg(False, help="Write into --output_dir even if not empty.")
    seed: int = arg(42, help="Seed of the resampling.", at_least=0)
    n_resamples: int = arg(
        10_000,
        help="Bootstrap resamples; the smallest possible p-value is 1 / (this number + 1).",
        at_least=100,
        at_most=10**7,
    )
    alpha: float = arg(
        0.05, help="Level of significance over the whole table; intervals cover 1 - alpha.", above=0, below=1
    )

    def __post_init__(self) -> None:
        if self.baseline and os.path.isfile(Path(self.baseline, "run.json")):
            self.runs = [*self.runs, self.baseline]  # (a folder that is named twice is read once)
        if self.archive_file:
            check_archive_name(self.archive_file)


def main() -> None:
    # --- Arguments ---
    (args,) = parse_arguments(CompareArguments, description=__doc__, positional="runs")
    require(args.runs, ["--runs"], "name the output folders of the runs to compare, such as runs/nli-*")
    check_output_dir(args.output_dir, args.overwrite_output_dir)

    # --- Data ---
    runs = read_runs_and_archives(args.runs)
    check_same_data(runs)
    baselines = find_baselines(args.baseline, runs)

    # --- Compare ---
    compared = comparison_table(runs, baselines, args.metric, args.n_resamples, args.seed, args.alpha)

    # --- Write ---
    print(write_tables([compared], Path(args.output_dir)))
    if args.archive_file:
        write_archive(runs, args.archive_file)
    write_json(Path(args.output_dir, "run.json"), run_record([args], runs=[run.folder for run in runs]))
    again = ["--output_dir", args.output_dir, "--overwrite_output_dir"]
    baseline = [] if args.baseline else [command("compare_runs", *args.runs, "--baseline", runs[0].system, *again)]
    say_where(args.output_dir, *baseline)


if __name__ == "__main__":
    run_script(main)
