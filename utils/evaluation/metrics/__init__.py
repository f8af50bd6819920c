"""Metrics as modules of `evaluate`, in folders of their own beside this file, so that none is fetched from the Hub."""

from pathlib import Path

import evaluate


def load_metric(name: str, config_name: str | None = None) -> evaluate.EvaluationModule:
    """A metric of this folder: `accuracy`, `seqeval`, `squad` (or its configuration `v2`), `mlqa` (one per language).

    Every process computes its own, in memory.
    """
    folder = Path(__file__).parent / name
    return evaluate.load(str(folder), config_name, module_type="metric", keep_in_memory=True)
