"""Entities of a tagged sentence, and precision and recall of them, as conlleval and seqeval define them."""

from collections import Counter
from collections.abc import Sequence


Entity = tuple[str, int, int]


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of a sentence: type, first word, last word.

    Tags are B-TYPE, I-TYPE and O; also E- and S- (last word, single word). A tag that does not continue the entity before
    it begins a new one, also I-PER after O or after B-LOC.
    """
    found: list[Entity] = []
    before = ("O", "")
    for position, tag in enumerate(tags):
        kind, _, entity_type = tag.partition("-")
        if kind != "O":
            continues = kind in "IE" and before[0] in "BI" and before[1] == entity_type
            first = found.pop()[1] if continues else position
            found.append((entity_type, first, position))
        before = (kind, entity_type)
    return found


def entity_scores(
    predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]
) -> dict[str, dict[str, float]]:
    """`precision`, `recall`, `f1` (0 for 0 / 0) and `number` of right entities: for each type and, as "", for all types.

    Predictions and references are the tags of every sentence.
    """
    right, predicted, both = (Counter[str]() for _ in range(3))
    for tags, right_tags in zip(predictions, references, strict=True):
        found, wanted = set(entities(tags)), set(entities(right_tags))
        for counter, some in ((predicted, found), (right, wanted), (both, found & wanted)):
            counter.update(entity_type for entity_type, *_ in some)
            counter[""] += len(some)
    return {name: _scores(both[name], predicted[name], right[name]) for name in sorted({"", *predicted, *right})}


def _scores(both: int, predicted: int, right: int) -> dict[str, float]:
    return {
        "precision": both / predicted if predicted else 0.0,
        "recall": both / right if right else 0.0,
        "f1": 2 * both / (predicted + right) if both else 0.0,
        "number": right,
    }
