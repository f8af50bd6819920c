"""Question answering on encoders that were made for classification: start and end, whatever their classes."""

import json

import pytest

from helpers import tiny


@pytest.mark.parametrize("n_labels", [1, 3])
@pytest.mark.parametrize("head", ["ForSequenceClassification", "ForMaskedLM"])
def test_an_encoder_with_other_labels(fine_tune, tmp_path, n_labels, head):
    labels = {f"class {k}": k for k in range(n_labels)}
    how = {"label2id": labels, "id2label": {k: name for name, k in labels.items()}}
    model = tiny.checkpoint(tmp_path / "model", head=head, **how)
    few = ("--max_train_samples", 8, "--max_eval_samples", 4, "--max_steps", 1, "--eval_languages", "en")
    out = fine_tune("qa", "--model", model, "--do_train", "--do_eval", *few)
    config = json.loads((out / "config.json").read_text())
    assert len(config.get("id2label", "ab")) == 2
    assert 0 <= json.loads((out / "all_results.json").read_text())["eval_en_f1"] <= 100
    fine_tune("qa", "--model", out, "--do_eval", *few[2:4], "--eval_languages", "en", output="again")
