"""Accuracy: the share of predictions that are right."""

import evaluate
from datasets import Features, Value


class Accuracy(evaluate.Metric):
    """`{"accuracy": share}` of class numbers, between 0 and 1."""

    def _info(self) -> evaluate.MetricInfo:
        columns = {name: Value("int32") for name in ("predictions", "references")}
        return evaluate.MetricInfo(description=self.__doc__, citation="", features=Features(columns))

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        if not references:
            raise ValueError("Accuracy needs at least one prediction.")
        return {"accuracy": sum(p == r for p, r in zip(predictions, references)) / len(references)}
