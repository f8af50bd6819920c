#!/usr/bin/env python
"""Compare finished runs: mean over seeds, difference from a baseline, and whether it is more than chance.

    python compare_runs.py runs/nli-* --baseline plain
    python compare_runs.py runs/* --baseline "bert-base-multilingual-cased, plain" --output_dir comparison

Reads what `run_nli.py`, `run_ner.py`, `run_qa.py`, `run_xsr.py` and `run_align.py` leave in their --output_dir: run.json,
all_results.json, predictions. Runs are grouped by task, language, model (with what it was adjusted to before) and regime
(`plain`, `continual`, `continual, alignment_weight 0`, …); those that differ in their seed alone are averaged. Nothing
is computed anew, so no model and no GPU is needed.

What the table says, for every system but the baseline:

    mean ± sd    over seeds (one seed has no sd)
    difference   from the baseline, in points; * if significant, (*) if so, but it cannot carry a claim about the method: too
                 few seeds or examples, or seeds that vary as much
    interval     95 % percentile interval of the difference, by the paired bootstrap
    p            of the paired bootstrap: over examples; for named entities over sentences, since F1 is no mean
    p (Holm)     the same, adjusted for the number of comparisons in the whole table: the one that counts
    t-test       p of the paired t-test over examples, as in Efimov et al. (ECIR 2023)
    McNemar      p of McNemar's test (mid-p), for single runs that are right or wrong

All tests pair examples and average seeds first: they tell whether *these* models would differ on other examples, not
whether other seeds would give the same. For that look at the sd, and have three seeds or more.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from utils.core.arguments import arg, at_least, parse_arguments, require
from utils.core.errors import InputError, run_script
from utils.core.files import check_output_dir, write_json, write_text
from utils.core.records import run_record
from utils.experiments.comparison import compare, find_baseline
from utils.experiments.comparison_tables import as_csv, as_latex, as_markdown
from utils.experiments.finished_runs import check_same_data, read_runs


@dataclass
class CompareArguments:
    """Which runs, and what they are compared with."""

    runs: list[str] = arg(
        default_factory=list, help="Output folders of finished runs; --runs may be left out if they come first."
    )
    baseline: str | None = arg(
        None,
        help="What the others are compared with: a regime (`plain`: each model fine-tuned plainly is the baseline of "
        "that model), a model (under every regime), both as the table shows them (`mbert, plain`), or the folder of a "
        "run (its model and regime, with all seeds). Without it there are means only.",
    )
    metric: list[str] | None = arg(
        None,
        help="Metric(s) to compare: accuracy, f1, exact_match, mrr (sentence retrieval), word_retrieval_accuracy. "
        "Default: all but mrr.",
    )
    output_dir: str = arg("comparison", help="Folder for the table: comparison.md, comparison.csv, comparison.tex.")
    overwrite_output_dir: bool = arg(False, help="Write into --output_dir even if not empty.")
    seed: int = arg(42, help="Seed of the resampling: the same table every time.")
    n_resamples: int = arg(10_000, help="Bootstrap resamples; no p-value can be less than 1 / (this + 1).")
    alpha: float = arg(0.05, help="Level of significance over the whole table; intervals cover 1 - alpha.")

    def __post_init__(self) -> None:
        at_least(100, self, "n_resamples")
        at_least(0, self, "seed")
        if not 0 < self.alpha < 1:
            raise InputError(f"--alpha {self.alpha} is no level; it must be between 0 and 1, such as 0.05.")
        if self.baseline and os.path.isfile(Path(self.baseline, "run.json")):
            self.runs = [*self.runs, self.baseline]  # (a folder that is named twice is read once)


def main() -> None:
    # --- Arguments ---
    (args,) = parse_arguments(CompareArguments, description=__doc__, positional="runs")
    require(args.runs, ["--runs"], "name the output folders of the runs to compare, such as runs/nli-*")
    check_output_dir(args.output_dir, args.overwrite_output_dir)

    # --- Data ---
    runs = read_runs(args.runs)
    check_same_data(runs)
    baseline = find_baseline(args.baseline, runs)

    # --- Compare ---
    comparison = compare(runs, baseline, args.metric, args.n_resamples, args.seed, args.alpha)

    # --- Write ---
    table = as_markdown(comparison)
    print(table)
    write_text(Path(args.output_dir, "comparison.md"), table)
    write_text(Path(args.output_dir, "comparison.csv"), as_csv(comparison))
    write_text(Path(args.output_dir, "comparison.tex"), as_latex(comparison))
    write_json(Path(args.output_dir, "run.json"), run_record([args], runs=[run.folder for run in runs]))


if __name__ == "__main__":
    run_script(main)
