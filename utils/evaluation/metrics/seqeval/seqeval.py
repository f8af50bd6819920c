"""Precision, recall and F1 of whole entities, as conlleval (Tjong Kim Sang and Buchholz, 2000) and seqeval define them."""

import evaluate
from datasets import Features, List, Value

from utils.evaluation.metrics.entities import entity_scores


class Seqeval(evaluate.Metric):
    """Given lists of tags per sentence: `precision`, `recall`, `f1` of all entities, `number` of right ones, `accuracy`
    of tags, all between 0 and 1, and the first four for each type of entity under its name.
    """

    def _info(self) -> evaluate.MetricInfo:
        columns = {name: List(Value("string")) for name in ("predictions", "references")}
        return evaluate.MetricInfo(
            description=__doc__, citation="", inputs_description=self.__doc__, features=Features(columns)
        )

    def _compute(self, predictions: list[list[str]], references: list[list[str]]) -> dict[str, object]:
        for number, (predicted, right) in enumerate(zip(predictions, references)):
            if len(predicted) != len(right):
                raise ValueError(f"Sentence {number} has {len(predicted)} predicted tags and {len(right)} right ones.")
        scores = entity_scores(predictions, references)
        hits = [p == r for tags, right in zip(predictions, references) for p, r in zip(tags, right)]
        return {**scores.pop(""), "accuracy": sum(hits) / len(hits) if hits else 0.0, **scores}
