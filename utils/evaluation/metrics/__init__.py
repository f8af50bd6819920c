"""Metrics by name, as classes of `evaluate` that are not fetched from the Hub: every module here is one.

Each also loads by its path: `evaluate.load("utils/evaluation/metrics/seqeval.py")`.
"""

from pkgutil import iter_modules

import evaluate
from evaluate.loading import import_main_class

from utils.core.errors import look_up


METRICS: dict[str, type[evaluate.Metric]] = {
    module.name: import_main_class(f"{__name__}.{module.name}") for module in iter_modules(__path__)
}


def load_metric(name: str) -> evaluate.Metric:
    """A metric of `METRICS`, which collects predictions in memory, in every process its own.

    Raises `InputError` for an unknown name.
    """
    return look_up(METRICS, name, "The metric")(keep_in_memory=True)
