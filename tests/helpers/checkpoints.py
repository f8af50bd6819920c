"""Looking at checkpoints."""

import logging

from transformers import AutoModelForSequenceClassification
from transformers.utils import logging as transformers_logging


def load_report(folder, caplog) -> list[str]:
    """What is said about missing and unexpected weights when a classifier is loaded from a folder."""
    caplog.clear()
    transformers_logging.enable_propagation()
    with caplog.at_level(logging.WARNING):
        AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
    transformers_logging.disable_propagation()
    text = "\n".join(record.message.replace(str(folder), "FOLDER") for record in caplog.records)
    assert "classifier.weight" in text
    return sorted(text.splitlines())
