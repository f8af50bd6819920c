"""Trainers of tiny models, and what two trainings are compared by."""

from dataclasses import replace

import torch
from datasets import Dataset
from transformers import (
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    TrainerCallback,
    TrainingArguments,
)

from helpers import tiny
from helpers.pairs import COLLATOR, TOKENIZER, WORD_TOKENIZER, some_pairs, some_rows
from utils.alignment.continual import ContinualAlignment
from utils.alignment.language_sampling import BY_SIZE
from utils.alignment.losses import AlignmentLoss
from utils.alignment.objectives import ADJUSTMENT, CONTINUAL, LossWeights, MeanSquaredError
from utils.alignment.pairs import encode_pairs
from utils.models.encoders import load_encoder
from utils.models.layers import freeze_unused_parameters
from utils.training.alignment_trainer import AlignmentTrainer
from utils.training.arguments import AlignTrainingArguments
from utils.training.continual_trainer import ContinualTrainer


def encoder_from(tmp_path, **changes):
    folder = tmp_path / "original"
    if not folder.exists():
        tiny.model("Bert", **changes).save_pretrained(folder)
    encoder = load_encoder(str(folder))
    freeze_unused_parameters(encoder)
    return encoder


def alignment_trainer_for(
    tmp_path, output="run", n_pairs=24, objective=None, weights=ADJUSTMENT, eval_dataset=None, dropout=0.0,
    languages=(), sampling=BY_SIZE, relinker=None, eval_layers=(), **arguments
):  # fmt: skip
    """`languages` has the language of each pair, if there are several."""
    encoder = encoder_from(tmp_path, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    settings = {"learning_rate": 1e-3, "per_device_train_batch_size": 8, "use_cpu": True, "logging_steps": 1,
                "disable_tqdm": True, "save_strategy": "no"}  # fmt: skip
    return AlignmentTrainer(
        model=encoder,
        args=AlignTrainingArguments(output_dir=str(tmp_path / output), **{**settings, **arguments}),
        alignment_loss=AlignmentLoss(objective or MeanSquaredError(), tiny.model(head="", seed=5), weights=weights),
        data_collator=replace(COLLATOR, languages=sorted(set(languages))),
        train_dataset=some_rows(n_pairs, languages),
        eval_dataset=eval_dataset,
        sampling=sampling,
        relinker=relinker,
        eval_layers=eval_layers,
        processing_class=TOKENIZER,
    )


def assert_same_weights(one, other, **tolerance):
    for name, weight in one.items():
        # The bias of a key changes no attention: its gradient is rounding error, which Adam turns into steps.
        if tolerance["rtol"] == 0 or not name.endswith("key.bias"):
            torch.testing.assert_close(other[name], weight, **tolerance)


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


IDS = TOKENIZER(tiny.TEXT * 4, truncation=True, max_length=24)["input_ids"]
QUICK = {"per_device_train_batch_size": 8, "use_cpu": True, "logging_steps": 1, "disable_tqdm": True,
         "save_strategy": "no", "learning_rate": 1e-3, "dataloader_pin_memory": False}  # fmt: skip


def rows_for(head: str) -> Dataset:
    # (The softmax of a head for questions runs over padding, too: here the rows are of one length.)
    rows = {"input_ids": [ids[:12] for ids in IDS] if head == "ForQuestionAnswering" else IDS}
    if head == "ForSequenceClassification":
        rows["labels"] = [k % 3 for k in range(len(IDS))]
    elif head == "ForQuestionAnswering":
        rows |= {
            "start_positions": [1 + k % 3 for k in range(len(IDS))],
            "end_positions": [4 + k % 3 for k in range(len(IDS))],
        }
    else:  # unevenly many labels, so that means of means are wrong
        rows["labels"] = [
            [t % 3 if (t + k) % (1 + k % 5) == 0 else -100 for t in range(len(ids))] for k, ids in enumerate(IDS)
        ]
    return Dataset.from_dict(rows)


def model_for(head: str, architecture: str = "Bert", dropout: float = 0.0):
    names = {"Bert": ("hidden_dropout_prob", "attention_probs_dropout_prob")}.get(architecture, ())
    changes = {} if head in ("ForMaskedLM", "ForQuestionAnswering") else {"num_labels": 3}
    return tiny.model(architecture, head, seed=1, **changes, **dict.fromkeys(names, dropout))


def alignment_for(
    architecture: str = "Bert", weights: LossWeights = CONTINUAL, objective=None, **settings
) -> ContinualAlignment:
    reference = tiny.model(architecture, "", seed=5)
    loss = AlignmentLoss(objective or MeanSquaredError(), reference, weights=weights)
    return ContinualAlignment(
        encode_pairs(some_pairs(12), WORD_TOKENIZER), loss, COLLATOR, **{"batch_size": 4, **settings}
    )


def continual_trainer_for(tmp_path, output="run", head="ForTokenClassification", kind=ContinualTrainer, dropout=0.0, model=None,
                alignment=None, **arguments):  # fmt: skip
    collators = {
        "ForTokenClassification": DataCollatorForTokenClassification,
        "ForMaskedLM": DataCollatorForTokenClassification,
    }
    options = {"alignment": alignment} if kind is ContinualTrainer else {}
    return kind(
        model=model or model_for(head, dropout=dropout),
        args=TrainingArguments(output_dir=str(tmp_path / output), **{**QUICK, **arguments}),
        train_dataset=rows_for(head),
        data_collator=collators.get(head, DataCollatorWithPadding)(TOKENIZER),
        processing_class=TOKENIZER,
        **options,
    )


def weights_of(trainer) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}


def trained_weights_of(trainer) -> dict[str, torch.Tensor]:
    """The trained weights (a pooler that the checkpoint lacks is random, and of no use)."""
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
