"""Precision, recall and F1 of whole entities: conlleval (Tjong Kim Sang and Buchholz, 2000), seqeval."""

import evaluate
from datasets import Features, List, Value

from utils.evaluation.entities import entity_scores


class Seqeval(evaluate.Metric):
    """`precision`, `recall`, `f1` and `number` of entities; `accuracy` of tags; and the first four by type of entity.

    Predictions and references are lists of tags, one list per sentence. All but the number are between 0 and 1.
    """

    def _info(self) -> evaluate.MetricInfo:
        columns = {name: List(Value("string")) for name in ("predictions", "references")}
        return evaluate.MetricInfo(description=self.__doc__, citation="", features=Features(columns))

    def _compute(self, predictions: list[list[str]], references: list[list[str]]) -> dict[str, object]:
        for number, (predicted, right) in enumerate(zip(predictions, references)):
            if len(predicted) != len(right):
                raise ValueError(f"Sentence {number} has {len(predicted)} predicted tags and {len(right)} right ones.")
        scores = entity_scores(predictions, references)
        hits = [p == r for tags, right in zip(predictions, references) for p, r in zip(tags, right)]
        return {**scores.pop(""), "accuracy": sum(hits) / len(hits) if hits else 0.0, **scores}
