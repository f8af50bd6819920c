"""Exact match and F1 of answers, as SQuAD's official scripts define them (Rajpurkar et al., 2016 and 2018)."""

import evaluate
from datasets import Features, List, Value

from utils.evaluation.metrics.answers import answer_scores, mean_scores, version_2_scores


class Squad(evaluate.Metric):
    """`exact_match` and `f1`, between 0 and 100.

    Predictions have `id`, `prediction_text` and, in the configuration `v2`, `no_answer_probability` (or any other number
    that is higher if the model is surer that there is no answer); references have `id` and `answers` with `text` and
    `answer_start`. `v2` allows questions without answer, and also reports what `version_2_scores` describes.
    """

    def _info(self) -> evaluate.MetricInfo:
        predictions = {"id": Value("string"), "prediction_text": Value("string")}
        if self.config_name == "v2":
            predictions["no_answer_probability"] = Value("float32")
        answers = {"text": List(Value("string")), "answer_start": List(Value("int32"))}
        columns = {"predictions": predictions, "references": {"id": Value("string"), "answers": answers}}
        return evaluate.MetricInfo(description=self.__doc__, citation="", features=Features(columns))

    def _compute(self, predictions: list[dict], references: list[dict]) -> dict[str, float]:
        version_2 = self.config_name == "v2"
        by_id = {prediction["id"]: prediction for prediction in predictions}
        if missing := [reference["id"] for reference in references if reference["id"] not in by_id]:
            raise ValueError(f"There is no prediction for question {missing[0]}, nor for {len(missing) - 1} others.")
        gold = [reference["answers"]["text"] for reference in references]
        chosen = [by_id[reference["id"]] for reference in references]
        answers = [prediction["prediction_text"] for prediction in chosen]
        scores = [answer_scores(answer, right, version_2=version_2) for answer, right in zip(answers, gold)]
        if not version_2:
            return mean_scores(scores, "exact_match", "f1")
        null_scores = [prediction["no_answer_probability"] for prediction in chosen]
        return version_2_scores(scores, list(map(bool, gold)), list(map(bool, answers)), null_scores)
