"""The formula by which languages are drawn, as a plain loop."""

import math


def naive_shares(rewards: list[list[float]], drawn: list[int]) -> list[float]:
    """The formula, word by word, from the losses of links and the draws so far."""
    of_all = [loss for losses in rewards for loss in losses]
    weights = []
    for language, losses in enumerate(rewards):
        mean = sum(losses or of_all) / len(losses or of_all)
        weights.append(mean + 0.1 * math.sqrt(math.log(len(drawn)) / (drawn.count(language) + 1)))
    powers = [math.exp(weight) for weight in weights]
    return [power / sum(powers) for power in powers]
