"""The trainer that adjusts an encoder."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, speed_metrics

from utils.alignment.language_sampling import BY_SIZE, LanguageBandit, LanguageSampling
from utils.alignment.losses import AlignmentLoss, count_terms, side_vectors
from utils.alignment.negatives import PART
from utils.alignment.pairs import SPECIAL_TOKEN, first_pairs
from utils.alignment.sampler import LengthGroupedBatches, MixedLanguages, OneLanguageAtATime
from utils.core.columns import column_array
from utils.core.errors import InputError
from utils.core.progress import progress
from utils.evaluation.neighbors import Retrieval, retrieve
from utils.evaluation.vectors import Autocast
from utils.models.encoders import load_encoder_weights, save_encoder
from utils.parallel.sides import ENGLISH, directions
from utils.training.base_trainer import ComponentTrainer
from utils.training.checkpoints import loss_identity
from utils.training.relinking import Relinker
from utils.training.used_embeddings import used_rows_only


class AlignmentTrainer(ComponentTrainer):
    """Adjusts an encoder by the weighted sum of alignment and regularization loss.

    The losses are means over the links, the pairs and the English words of the *global* batch, from which negatives come,
    too: with several processes or accumulated batches, a step equals that of one process with the whole batch. Each is
    logged under its own name (`alignment_loss`, `sentence_loss`, `regularization_loss`), beside `pairs_per_second`; with
    several languages also the alignment loss of each (`alignment_loss_hi`).

    Args:
        alignment_loss: objective, frozen reference model (f0), layers and weights of the losses.
        sampling: how often pairs of each language are drawn.
        anchor: what the side in the place of English is called in the names of metrics.
        relinker: links the words of the training pairs anew every few steps.
        eval_layers: hidden states at which evaluation measures word retrieval, besides those that are aligned.
        kwargs: as for `Trainer`; `model` is an encoder of `load_encoder`, possibly `with_lora`; `train_dataset` comes
            from `encode_pairs`, `eval_dataset` too, or is a dictionary of such by language; `data_collator` is an
            `AlignmentCollator`.
    """

    model: PreTrainedModel
    row_name = "pairs"
    save_weights = staticmethod(save_encoder)

    def __init__(
        self,
        *args: Any,
        alignment_loss: AlignmentLoss,
        sampling: LanguageSampling = BY_SIZE,
        anchor: str = ENGLISH,
        eval_layers: Sequence[int] = (),
        relinker: Relinker | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.relinker = relinker
        if relinker and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise InputError(
                "--realign_every needs the whole model in every process, so neither FSDP nor DeepSpeed; leave it out."
            )
        if relinker:
            self.train_dataset = relinker.numbered(self.train_dataset)  # type: ignore[arg-type]
        self.can_return_loss = True
        self.args.remove_unused_columns = False  # the collator, not the model's `forward`, chooses columns
        self.alignment_loss, self.eval_layers = alignment_loss, eval_layers
        self.languages, self.sampling = getattr(self.data_collator, "languages", ()), sampling
        self.loss_of_language = alignment_loss.weights.of_language
        self.anchor = anchor
        # Of the last evaluation, by direction: for every pair its links (`gold`), and those that were found (`prediction`).
        self.word_predictions: dict[str, list[dict[str, int]]] = {}
        # The same of --eval_on_start, before the first step.
        self.first_word_predictions: dict[str, list[dict[str, int]]] = {}
        alignment_loss.to(self.args.device)
        self._check_metric()

    def _check_metric(self) -> None:
        """Raise `InputError` for a --metric_for_best_model that `evaluate` does not give."""
        languages = self.eval_dataset if isinstance(self.eval_dataset, dict) else ["source"]
        ways = [f"{way}_" for language in languages for way in directions(language, self.anchor)]
        losses = self._measured_losses
        of_languages = [f"{name}_{language}" for name in losses for language in languages if len(languages) > 1]
        known = ["loss", *losses, *of_languages, *(f"{way}word_retrieval_accuracy" for way in ("", *ways))]
        wanted = str(self.args.metric_for_best_model or "loss").removeprefix("eval_")
        *lower, last = self.alignment_loss.layers
        layers = {*lower, *self.eval_layers} - {last}
        if wanted in (*known, *(f"{way}layer{layer}_word_retrieval_accuracy" for way in ways for layer in layers)):
            return
        # (The highest aligned layer is named without its number.)
        if (found := re.search(r"_layer(\d+)_", wanted)) and (plain := wanted.replace(found[0], "_")) in known:
            remedy = f"it is {plain}" if int(found[1]) == last else f"add --eval_layers {int(found[1])}"
            raise InputError(f"--metric_for_best_model {wanted} is not measured; {remedy}.")
        raise InputError(f"--metric_for_best_model {wanted} is not measured; choose one of {', '.join(known)}.")

    @property
    def _measured_losses(self) -> list[str]:
        """The names of the losses that evaluation measures: those of words, and of sentences if they are aligned."""
        sentences = ["sentence_loss"] if self.alignment_loss.weights.sentence else []
        return ["alignment_loss", "regularization_loss", *sentences]

    def identity_parts(self) -> dict[str, Any]:
        parts = {**loss_identity(self.alignment_loss), "language_sampling": asdict(self.sampling)}
        return parts | (self.relinker.identity() if self.relinker else {})

    # --- Training ---

    def train(self, *args: Any, **kwargs: Any) -> Any:
        if self.sampling.name == "ucb":
            self.bandit = LanguageBandit(len(self.languages), self._order_seed)
        if self.relinker:
            self.relinker.forget()
        with used_rows_only(self, self.train_dataset):
            return super().train(*args, **kwargs)

    def _loss_alone(self, batch: Mapping[str, Tensor], autocast: Autocast) -> Tensor:
        return self.alignment_loss.weights.total(self.alignment_loss(self.model, batch, autocast).means())

    def _own_sampler(self) -> LengthGroupedBatches | None:
        """With --language_sampling, batches of languages in other shares than the numbers of their pairs."""
        rows = self.train_dataset
        if self.sampling.name == "size" or not isinstance(rows, Dataset):
            return super()._own_sampler()
        numbers = {language: number for number, language in enumerate(self.languages)}
        languages = np.array([numbers[language] for language in column_array(rows, "language")])
        per_block = {} if self.args.train_sampling_strategy == "group_by_length" else {"batches_per_block": 1}
        given = self._lengths_and_batches()
        if self.bandit:
            return OneLanguageAtATime(*given, languages=languages, bandit=self.bandit, **per_block)
        shares = self.sampling.shares(np.bincount(languages, minlength=len(numbers)))
        return MixedLanguages(*given, languages=languages, shares=shares, **per_block)

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor]:
        """The batches of one optimizer step and, for the means, their links, English words and pairs over all processes."""
        self._meter.begin_step(*self.alignment_loss.weights.losses())
        if self.bandit and self.state.global_step % LanguageBandit.EVERY == 0:
            self._by_language.collect()
            self.bandit.update(*self._by_language.totals)
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if relinker := self.relinker:
            processes = self.accelerator.num_processes, self.accelerator.process_index
            relinker.begin_step(self.state.global_step, self.model, *processes)
            # (Here rather than when a batch is loaded, which may be steps before.)
            batches = [relinker.relinked(batch, self.train_dataset, self.data_collator) for batch in batches]
        if (n_own := self._n_own_rows()) is not None:
            batches[-1] = first_pairs(batches[-1], n_own)
        for batch, part in zip(batches, self.alignment_loss.parts(self.model_wrapped, batches, self.accelerator)):
            batch[PART] = part
        counts = torch.tensor(count_terms(batches), dtype=torch.float32, device=device)
        return batches, self.accelerator.reduce(counts, "sum")

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Tensor | None = None
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the losses: this batch's share of their means over the global batch.

        `num_items_in_batch` [3] has the links, English words and pairs of the global batch, by default this batch's own.
        With `return_outputs`, the losses by name as well.
        """
        terms = self.alignment_loss(model, inputs, self.accelerator.autocast, inputs.pop(PART, None))
        losses = terms.means(num_items_in_batch, self.accelerator.num_processes)
        loss = self.alignment_loss.weights.total(losses)
        if model.training:
            self._meter.add(losses, len(inputs["source_sentence"]) * self.accelerator.num_processes)
            self._by_language.add(terms, inputs)
        return (loss, losses) if return_outputs else loss

    def floating_point_ops(self, inputs: Mapping[str, Tensor]) -> int:
        """Forward and backward of both sides through f (6 per weight and token), forward of English through f0 (2)."""
        weights = self.model.num_parameters(exclude_embeddings=True)
        source, english = inputs["source_input_ids"].numel(), inputs["english_input_ids"].numel()
        return weights * (6 * (source + english) + 2 * english)

    # --- Evaluation ---

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Measure the losses and word retrieval on held-out pairs: rows of `encode_pairs`, or a dictionary by language.

        Word retrieval (Cao et al., 2020, section 4): every linked word looks for its link among all linked words of
        the other side, in all held-out pairs of its language, by cosine similarity; accuracy is how often the
        nearest one is the very word it is linked with, in that sentence. Special tokens take no part.

        Returns:
            `eval_alignment_loss` and `eval_regularization_loss` (means over all links, all English words), and
            `eval_sentence_loss` if sentences are aligned; `eval_loss` (their weighted sum),
            `eval_word_retrieval_accuracy` (mean over languages and directions), and per direction
            `eval_hi-en_word_retrieval_accuracy`, the querying language first. These are of the highest aligned layer; of the
            other ones and of `eval_layers`, `eval_hi-en_layer5_word_retrieval_accuracy`. Of several languages also the losses
            of each: `eval_alignment_loss_hi`.
        """
        start = time.time()
        given: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        datasets: dict[str, Dataset] = given if isinstance(given, dict) else {"source": given}
        sums, by_direction = torch.zeros(2, 3, dtype=torch.float64), dict[str, float]()
        accuracies: list[float] = []
        for language, dataset in datasets.items():
            language_sums, vectors, pair_of_link = self._measure(dataset)
            sums += language_sums
            if len(datasets) > 1:
                means = (language_sums[0] / language_sums[1].clamp(min=1)).tolist()
                by_direction |= {f"{name}_{language}": mean for name, mean in zip(self._measured_losses, means)}
            for layer, (source, english) in vectors.items():
                label = "" if layer == self.alignment_loss.layers[-1] else f"layer{layer}_"
                sides = ((source, english), (english, source))
                ways = {way: retrieve(*both) for way, both in zip(directions(language, self.anchor), sides)}
                by_direction |= {f"{way}_{label}word_retrieval_accuracy": one.accuracy for way, one in ways.items()}
                if not label:
                    accuracies += [one.accuracy for one in ways.values()]
                    self.word_predictions |= {
                        way: _by_pair(one, pair_of_link, len(dataset)) for way, one in ways.items()
                    }
        if self.is_in_train and self.state.global_step == 0:
            self.first_word_predictions = dict(self.word_predictions)
        losses = dict(zip(self._measured_losses, sums[0] / sums[1].clamp(min=1)))
        numbers = {name: loss.item() for name, loss in losses.items()} | by_direction
        numbers["loss"] = self.alignment_loss.weights.total(losses).item()
        numbers["word_retrieval_accuracy"] = sum(accuracies) / len(accuracies)
        numbers["links"] = int(sums[1, 0])
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in numbers.items()}
        metrics |= speed_metrics(metric_key_prefix, start, num_samples=sum(map(len, datasets.values())))
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _measure(self, dataset: Dataset) -> tuple[Tensor, dict[int, list[Tensor]], np.ndarray]:
        """Sums of the losses and their counts [2, 3], the vectors of linked words, source and English, by layer, and the pair
        (row of the data set) that each of them is from."""
        aligned = self.alignment_loss.layers
        n, layers = len(aligned), list(dict.fromkeys([*aligned, *self.eval_layers]))
        # Every process takes its own share: a distributed sampler would repeat pairs to even the shares out.
        lengths = column_array(dataset, "length").sum(axis=1)
        n_processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        pairs = np.argsort(lengths, kind="stable")[rank::n_processes]
        share = dataset.select(pairs)
        n_links = [sum(word != SPECIAL_TOKEN for word in words) for words in share["source_spelling"]]
        model = self.model.eval()
        sentences = bool(self.alignment_loss.weights.sentence)
        sums = torch.zeros(2, 3, dtype=torch.float64)
        vectors: dict[int, list[tuple[Tensor, Tensor]]] = {layer: [] for layer in layers}
        loader = DataLoader(share, batch_size=self.args.eval_batch_size, collate_fn=self.data_collator)
        costs = [int(part.sum()) for part in np.array_split(lengths[pairs], max(1, len(loader)))]
        bar = progress(description="Measuring held-out pairs", total=sum(costs), unit="tokens", leave=False)
        for batch, cost in zip(loader, costs):
            batch = {name: tensor.to(self.args.device) for name, tensor in batch.items()}
            with torch.no_grad():
                # As in training, f and f0 in the same precision: f keeps that of a training before, f0 does not.
                with self.accelerator.autocast():
                    source, english = (
                        side_vectors(model, batch, side, layers, sentences=sentences) for side in ("source", "english")
                    )
                    before = english.words[:n]
                    if self.alignment_loss.reference_model is not model:
                        before = side_vectors(self.alignment_loss.reference_model, batch, "english", aligned).words
                terms = self.alignment_loss.compare(source.of_first(n), english.of_first(n), before, batch)
            sums += torch.tensor([[loss.item() for loss in terms.sums().values()], terms.counts], dtype=torch.float64)
            links = batch["links"][batch["source_spelling"] != SPECIAL_TOKEN]
            for layer, source_words, english_words in zip(layers, source.words, english.words):
                vectors[layer].append((source_words[links[:, 0]].cpu(), english_words[links[:, 1]].cpu()))
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
            bar.update(cost)
        bar.close()
        of_processes = gather_object([(sums, vectors, np.repeat(pairs, n_links))])
        all_sums, all_vectors, all_pairs = zip(*of_processes)
        sides = {layer: zip(*(pair for part in all_vectors for pair in part[layer])) for layer in layers}
        of_layers = {layer: list(map(torch.cat, both)) for layer, both in sides.items()}
        return torch.stack(all_sums).sum(dim=0), of_layers, np.concatenate(all_pairs)

    # --- Checkpoints ---

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.relinker and self.args.should_save and Path(output_dir or "").name.startswith(PREFIX_CHECKPOINT_DIR):
            self.relinker.save(str(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        encoder = self.accelerator.unwrap_model(model or self.model)
        if self.relinker:
            self.relinker.load(resume_from_checkpoint)
        if isinstance(encoder, PeftModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_encoder_weights(encoder, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(str(self.state.best_model_checkpoint))


def _by_pair(found: Retrieval, pair_of_link: np.ndarray, n_pairs: int) -> list[dict[str, int]]:
    """For every pair, also without links, how many links it has (`gold`) and how many of them were found."""
    right = (found.nearest == found.gold).cpu().numpy()
    gold = np.bincount(pair_of_link, minlength=n_pairs)
    prediction = np.bincount(pair_of_link, right, minlength=n_pairs).astype(int)
    return [{"id": k, "gold": n, "prediction": m} for k, (n, m) in enumerate(zip(gold.tolist(), prediction.tolist()))]
