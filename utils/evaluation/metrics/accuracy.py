"""Accuracy: the share of predictions that are right."""

import evaluate
from datasets import Features, Value


class Accuracy(evaluate.Metric):
    """`{"accuracy": share}` of names or numbers of classes, between 0 and 1."""

    def _info(self) -> evaluate.MetricInfo:
        kinds = [Features(predictions=Value(kind), references=Value(kind)) for kind in ("int32", "string")]
        return evaluate.MetricInfo(description=self.__doc__, citation="", features=kinds)

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        if not references:
            raise ValueError("Accuracy needs at least one prediction.")
        return {"accuracy": sum(p == r for p, r in zip(predictions, references)) / len(references)}
