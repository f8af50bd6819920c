"""Metrics by name, as classes of `evaluate` that are not fetched from the Hub. A new one is a module and an entry here.

Each module also loads by its path: `evaluate.load("utils/evaluation/metrics/squad.py", "v2")`.
"""

import evaluate

from utils.core.errors import InputError
from utils.evaluation.metrics.accuracy import Accuracy
from utils.evaluation.metrics.mlqa import Mlqa
from utils.evaluation.metrics.seqeval import Seqeval
from utils.evaluation.metrics.squad import Squad


METRICS: dict[str, type[evaluate.Metric]] = {"accuracy": Accuracy, "mlqa": Mlqa, "seqeval": Seqeval, "squad": Squad}


def load_metric(name: str, config_name: str | None = None) -> evaluate.Metric:
    """A metric of `METRICS`, which collects predictions in memory; raises `InputError` for an unknown name.

    `config_name` is optionally `v2` for `squad`, and the language of the answers for `mlqa`. Every process computes its own.
    """
    if name not in METRICS:
        raise InputError(f"There is no metric {name}; choose from {', '.join(METRICS)}.")
    return METRICS[name](config_name=config_name, keep_in_memory=True)
