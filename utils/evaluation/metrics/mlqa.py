"""Exact match and F1 of answers, as MLQA's official script defines them (Lewis et al., ACL 2020)."""

import evaluate
from datasets import Features, List, Value

from utils.evaluation.metrics.answers import answer_scores, mean_scores


class Mlqa(evaluate.Metric):
    """`exact_match` and `f1`, between 0 and 100; the configuration is the language of the answers (that of the context).

    Predictions have `id` and `prediction_text`, references `id` and `answers` with `text` and `answer_start`. A question
    without prediction scores 0.
    """

    def _info(self) -> evaluate.MetricInfo:
        predictions = {"id": Value("string"), "prediction_text": Value("string")}
        answers = {"text": List(Value("string")), "answer_start": List(Value("int32"))}
        columns = {"predictions": predictions, "references": {"id": Value("string"), "answers": answers}}
        return evaluate.MetricInfo(description=self.__doc__, citation="", features=Features(columns))

    def _compute(self, predictions: list[dict], references: list[dict]) -> dict[str, float]:
        answered = {prediction["id"]: prediction["prediction_text"] for prediction in predictions}
        scores = [
            answer_scores(answered[one["id"]], one["answers"]["text"], self.config_name)
            if one["id"] in answered
            else (0.0, 0.0)
            for one in references
        ]
        return mean_scores(scores, "exact_match", "f1")
