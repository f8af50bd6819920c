"""Exact match and F1 of answers, as SQuAD's official scripts define them (Rajpurkar et al., 2016 and 2018)."""

from collections.abc import Mapping, Sequence

import evaluate
from datasets import Features, List, Value

from utils.evaluation.metrics.answers import answer_scores


class Squad(evaluate.Metric):
    """`exact_match` and `f1`, between 0 and 100.

    Predictions have `id`, `prediction_text` and, in the configuration `v2`, `no_answer_probability` (or anything else
    that is the higher the surer there is no answer); references have `id` and `answers` with `text` and `answer_start`.
    `v2` allows questions without answer (no text), and also reports both for questions with (`HasAns_exact`, …) and
    without one (`NoAns_exact`, …), and the best that a threshold on the third value could reach (`best_exact`,
    `best_exact_thresh`, …).
    """

    def _info(self) -> evaluate.MetricInfo:
        predictions = {"id": Value("string"), "prediction_text": Value("string")}
        if self.config_name == "v2":
            predictions["no_answer_probability"] = Value("float32")
        answers = {"text": List(Value("string")), "answer_start": List(Value("int32"))}
        columns = {"predictions": predictions, "references": {"id": Value("string"), "answers": answers}}
        return evaluate.MetricInfo(
            description=__doc__, citation="", inputs_description=self.__doc__, features=Features(columns)
        )

    def _compute(self, predictions: list[dict], references: list[dict]) -> dict[str, float]:
        version_2 = self.config_name == "v2"
        answered = {prediction["id"]: prediction for prediction in predictions}
        if missing := [reference["id"] for reference in references if reference["id"] not in answered]:
            raise ValueError(f"There is no prediction for question {missing[0]}, nor for {len(missing) - 1} others.")
        scores = []
        for reference in references:
            text = answered[reference["id"]]["prediction_text"]
            scores.append(answer_scores(text, reference["answers"]["text"], version_2=version_2))
        results = _means(scores, "exact_match", "f1")
        if version_2:
            has_answer = [bool(reference["answers"]["text"]) for reference in references]
            for name, wanted in (("HasAns", True), ("NoAns", False)):
                some = [score for score, has in zip(scores, has_answer) if has == wanted]
                if some:
                    results |= {**_means(some, f"{name}_exact", f"{name}_f1"), f"{name}_total": len(some)}
            chosen = [answered[reference["id"]] for reference in references]
            for position, name in enumerate(("exact", "f1")):
                results |= _best_threshold(name, [score[position] for score in scores], chosen, has_answer)
        return results


def _means(scores: Sequence[tuple[float, float]], *names: str) -> dict[str, float]:
    return {name: 100 * sum(column) / len(scores) for name, column in zip(names, zip(*scores))}


def _best_threshold(
    name: str, scores: Sequence[float], predictions: Sequence[Mapping], has_answer: Sequence[bool]
) -> dict[str, float]:
    """The best mean score if every question above some threshold were answered with nothing, and that threshold."""
    total = best = sum(not has for has in has_answer)  # nothing is answered
    threshold = 0.0
    by_certainty = sorted(zip(predictions, scores, has_answer), key=lambda item: item[0]["no_answer_probability"])
    for prediction, score, has in by_certainty:
        total += score if has else -bool(prediction["prediction_text"])
        if total > best:
            best, threshold = total, prediction["no_answer_probability"]
    return {f"best_{name}": 100 * best / len(scores), f"best_{name}_thresh": threshold}
