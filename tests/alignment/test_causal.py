"""What is assumed for causal models."""

import logging

import pytest

from helpers import tiny
from utils.alignment.causal import assume_for_causal
from utils.alignment.objectives import AlignmentArguments
from utils.core.arguments import parse_arguments


SUITED = {"word_pooling": "end", "include_special_tokens": False, "alignment_layer": [2]}
USUAL = {"word_pooling": "avg", "include_special_tokens": True, "alignment_layer": [-1]}


@pytest.mark.parametrize("given", [(), ("word_pooling",), ("alignment_layer", "include_special_tokens"), tuple(USUAL)])
@pytest.mark.parametrize("architecture", ["Llama", "Bert"])
def test_only_arguments_that_are_not_given_change(run, caplog, architecture, given):
    values = {name: str(USUAL[name][0] if isinstance(USUAL[name], list) else USUAL[name]).lower() for name in given}

    def main():
        return parse_arguments(AlignmentArguments)[0]

    arguments = run(main, *(f"--{name}={value}" for name, value in values.items()))
    caplog.set_level(logging.INFO)
    assume_for_causal(arguments, tiny.model(architecture, "", num_hidden_layers=4))
    taken = {name: value for name, value in SUITED.items() if architecture == "Llama" and name not in given}
    assert {name: getattr(arguments, name) for name in USUAL} == USUAL | taken
    announced = [message for message in caplog.messages if "assumed" in message]
    assert len(announced) == bool(taken)
    assert all(f"--{name} " in announced[0] for name in taken)
