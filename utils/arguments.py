"""Arguments that several scripts take, as dataclasses for `HfArgumentParser`, and how a script parses its own."""

import difflib
import json
import os
import sys
from argparse import Action, ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import HfArgumentParser, TrainingArguments
from transformers.hf_argparser import HfArg

from utils.alignment import OBJECTIVES
from utils.errors import InputError
from utils.hub import commit_of, find_model
from utils.records import check_output_dir
from utils.word_aligners import ALIGNERS
from utils.word_pooling import POOLING_MODES


class _HelpFormatter(ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter):
    """Shows defaults (but not that there is none), and the script's own description as it was written."""

    def _get_help_string(self, action: Action) -> str | None:
        return action.help if action.default in (None, []) else super()._get_help_string(action)


def parse_arguments(
    *dataclasses: type, description: str | None = None, positional: str | None = None
) -> tuple[Any, ...]:
    """Parse `sys.argv` into one object per dataclass.

    A single argument that ends in `.json`, `.yaml` or `.yml` is read as a file of settings; arguments after it win
    over what it says.

    Args:
        dataclasses: of the arguments.
        description: what `--help` begins with.
        positional: an argument whose values may also stand first, without its name.

    Raises:
        InputError: for a settings file that is missing or is no mapping of arguments.
    """
    for group in dataclasses:  # --help shows the arguments under what their class says of itself
        group._argument_group_name = group.__doc__.split("\n")[0].rstrip(".")
    first = f" [{positional.upper()} ...]" if positional else ""
    usage = f"%(prog)s [settings.yaml]{first} [--argument value ...]"  # (the list of all is what follows it)
    parser = HfArgumentParser(
        dataclasses, usage=usage, description=description, formatter_class=_HelpFormatter, allow_abbrev=False
    )
    settings, arguments = [], sys.argv[1:]
    if arguments and arguments[0].endswith((".json", ".yaml", ".yml")):
        settings, arguments = _arguments_from(arguments[0]), arguments[1:]
    if positional and arguments and not arguments[0].startswith("-"):
        arguments = [f"--{positional}", *arguments]
    arguments = [*settings, *arguments]
    try:
        *parsed, unknown = parser.parse_args_into_dataclasses(args=arguments, return_remaining_strings=True)
    except InputError:
        raise
    except (ValueError, ImportError) as error:  # TrainingArguments checks its values as it is made
        raise InputError(f"These arguments do not work together: {' '.join(str(error).split())}") from None
    if unknown:
        known = [option for action in parser._actions for option in action.option_strings]
        close = difflib.get_close_matches(unknown[0], known, n=1)
        remedy = f"did you mean {close[0]}?" if close else "see --help."
        if positional and not unknown[0].startswith("-"):
            remedy = f"write {positional} before everything else, or after --{positional}."
        raise InputError(f"There is no argument {unknown[0]}; {remedy}")
    return tuple(parsed)


def _arguments_from(path: str) -> list[str]:
    """A settings file as the words that would be typed (YAML reads JSON as well)."""
    try:
        # Every value as it is written: `no` is Norwegian here, not false.
        settings = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except OSError as error:
        raise InputError(f"The settings file {path} cannot be read ({error.strerror}); check the path.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            f"The settings file {path} is neither YAML nor JSON ({' '.join(str(error).split())})."
        ) from None
    if not isinstance(settings, dict):
        raise InputError(f"The settings file {path} must map argument names to values, like `seed: 42`.")
    words = []
    for name, value in settings.items():
        if value not in ("", "~", "null"):
            values = value if isinstance(value, list) else [value]
            words += [f"--{name}", *(json.dumps(v) if isinstance(v, dict) else v for v in values)]
    return words


@dataclass
class ModelArguments:
    """Which encoder."""

    model_name_or_path: str = HfArg(
        default="google-bert/bert-base-multilingual-cased",
        aliases=["--model"],
        help="Encoder to start from: a local folder or a Hub id, your own repositories also without your name; anything "
        "AutoModel loads with a fast tokenizer.",
    )
    model_revision: str = field(default="main", metadata={"help": "Branch, tag or commit of the Hub repository."})
    cache_dir: str | None = field(default=None, metadata={"help": "Where downloads are kept, if not in HF_HOME."})
    token: str | None = field(
        default=None, metadata={"help": "Hub token for private models; by default the one of `hf auth login`."}
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run code that the model's repository brings along. Only if you trust it."}
    )

    allow_pickled_weights: bool = field(
        default=False,
        metadata={
            "help": "Read weights that are a pickle (pytorch_model.bin), which can run any code, where a repository has no "
            "safetensors. Only if you trust it."
        },
    )

    def find(self, name: str, revision: str | None = None) -> str:
        """The folder or repository that a name means: see `utils.hub.find_model`."""
        return find_model(name, revision or self.model_revision, self.cache_dir, self.token)

    def commit(self, name: str) -> str | None:
        """The commit of a repository at `--model_revision`; None for a folder."""
        return commit_of(name, self.model_revision, self.cache_dir)

    def hub_options(self) -> dict[str, Any]:
        """What `from_pretrained` wants to know beside the name."""
        return {
            "revision": self.model_revision,
            "cache_dir": self.cache_dir,
            "token": self.token,
            "trust_remote_code": self.trust_remote_code,
            "allow_pickled_weights": self.allow_pickled_weights,
        }


@dataclass
class ParallelDataArguments:
    """Where the parallel sentences come from, and which of them are used."""

    languages: list[str] = HfArg(
        default_factory=list,
        aliases=["--language"],
        help="Language(s) pulled to English, by code: `--language hi`; several at once share one model: "
        "`--languages es ru vi hi`.",
    )
    parallel_dataset: str | None = field(
        default=None, metadata={"help": "Parallel corpus: a data set on the Hub or in a local folder."}
    )
    parallel_config: str | None = field(
        default=None,
        metadata={
            "help": "Its configuration; {language} stands for the language. Default: the first of en-{language}, "
            "{language}-en, {language} that there is."
        },
    )
    parallel_split: str = field(default="train", metadata={"help": "Its split."})
    streaming: bool = field(
        default=False,
        metadata={
            "help": "Read --parallel_dataset as far as it takes to find --max_train_pairs, and download nothing beyond: "
            "the pairs are drawn from a buffer of 10,000 that moves along, and kept. For --aligner encoder or dictionary."
        },
    )
    parallel_file: list[str] | None = field(
        default=None,
        metadata={
            "help": "Parallel corpus in a file: .tsv (foreign first, or with a header), .csv, .jsonl, .parquet or Moses "
            "lines `source ||| English`, each also .gz; or two files aligned line by line: `--parallel_file corpus.hi corpus.en`. With several "
            "languages LANGUAGE=FILE each: `--parallel_file hi=a.tsv ru=b.ru,b.en`."
        },
    )
    source_column: str | None = field(
        default=None, metadata={"help": "Column of the foreign sentences, if it is not named by the language's code."}
    )
    english_column: str | None = field(
        default=None, metadata={"help": "Column of the English sentences, if it is not named `en`."}
    )
    word_splitting: str = field(
        default="auto",
        metadata={
            "help": "How sentences become words: `space` for text that is tokenised already, `punctuation` also cuts "
            "off punctuation marks; `auto`: as the links file says or else by space, without one by punctuation.",
            "choices": ["auto", "space", "punctuation"],
        },
    )
    max_words: int = field(default=64, metadata={"help": "Drop pairs with more words than this on a side."})
    max_train_pairs: int | None = field(
        default=250_000,
        metadata={
            "help": "Pairs per language, drawn at random from all that can be used; words are linked in as many pairs as "
            "it takes to find these. The paper adjusts with 250,000 and keeps 30,000 for continual learning."
        },
    )
    preprocessing_num_workers: int | None = field(
        default=None, metadata={"help": "Processes that prepare the pairs. Default: one."}
    )

    def __post_init__(self) -> None:
        for name in ("max_words", "max_train_pairs"):
            at_least(1, self, name)
        if len(set(self.languages)) < len(self.languages) or "en" in self.languages:
            raise InputError(
                f"--languages {' '.join(self.languages)}: name each once, and not en, which is the other side."
            )
        if self.parallel_dataset and self.parallel_file:
            raise InputError("--parallel_dataset and --parallel_file are both given; leave one out.")
        if self.streaming and not (self.parallel_dataset and self.max_train_pairs):
            missing = "--max_train_pairs" if self.parallel_dataset else "--parallel_dataset"
            raise InputError(f"--streaming needs {missing}; add it, or leave --streaming out.")


@dataclass
class AlignerArguments:
    """Where the word links come from."""

    aligner: str | None = field(
        default=None,
        metadata={
            "help": "Who links the words: `file` reads --links_file (the default where there is one); `encoder` asks "
            "the encoder itself: mutual nearest words in its middle layer (the default otherwise); `statistical` "
            "learns from the corpus alone, all of it, and alone needs memory that grows with it (pip install sil-thot); "
            "`dictionary` looks them up in --dictionary_file.",
            "choices": list(ALIGNERS),
        },
    )
    links_file: list[str] | None = field(
        default=None,
        metadata={
            "help": "Word links in Pharaoh format, a line `0-0 1-2 …` per pair, source-English, as fast_align, "
            "eflomal, awesome-align and simalign write them. With several languages LANGUAGE=FILE each."
        },
    )
    reverse_links: bool = field(default=False, metadata={"help": "The links file has English first."})
    dictionary_file: list[str] | None = field(
        default=None,
        metadata={"help": "Word list for `--aligner dictionary`: foreign word, white space, English word on a line."},
    )
    aligner_layer: int | None = field(
        default=None, metadata={"help": "Layer (index into hidden_states) that `--aligner encoder` compares."}
    )
    statistical_model: str = field(
        default="eflomal",
        metadata={
            "help": "What `--aligner statistical` learns: eflomal (the most exact one), fast_align (the quickest, and "
            "the paper's), hmm, ibm1, ibm2, ibm3, ibm4."
        },
    )
    symmetrization: str = field(
        default="intersection",
        metadata={
            "help": "How `--aligner statistical` joins its two directions: intersection (the paper's), union, och, "
            "grow, grow-diag, grow-diag-final, grow-diag-final-and."
        },
    )
    write_links: list[str] | None = field(
        default=None,
        metadata={
            "help": "Link the whole corpus, not only the pairs that are drawn, and keep the links in this file, to be "
            "given as --links_file next time (with another seed, for example). With several languages "
            "LANGUAGE=FILE each."
        },
    )

    def __post_init__(self) -> None:
        if self.links_file and self.aligner not in (None, "file"):
            raise InputError(f"--links_file is not read by --aligner {self.aligner}; leave one of the two out.")


@dataclass
class AlignmentArguments:
    """What is pulled together, and how."""

    word_pooling: str = field(
        default="avg",
        metadata={
            "help": "A word's vector: mean of its subwords (`avg`), its first (`start`) or last (`end`); `token`: "
            "every subword is a word of its own.",
            "choices": list(POOLING_MODES),
        },
    )
    alignment_layer: int = field(
        default=-1, metadata={"help": "Hidden state that is aligned: 0 the embeddings, -1 the last layer."}
    )
    alignment_objective: str = field(
        default="mse",
        metadata={
            "help": "`mse`: squared difference of linked words, as in the paper; `contrastive`: tell the linked word "
            "from the other words of the batch.",
            "choices": list(OBJECTIVES),
        },
    )
    temperature: float = field(default=0.1, metadata={"help": "Divides the similarities of `contrastive`."})
    alignment_weight: float = field(default=1.0, metadata={"help": "Weight of the alignment loss."})
    regularization_weight: float = field(
        default=1.0, metadata={"help": "Weight of the loss that keeps English words where the original has them."}
    )
    include_special_tokens: bool = field(
        default=True, metadata={"help": "Count [CLS]-[CLS] and [SEP]-[SEP] (whatever they are called) as links too."}
    )

    def __post_init__(self) -> None:
        for name in ("alignment_weight", "regularization_weight"):
            at_least(0, self, name)
        if self.temperature <= 0:
            raise InputError(f"--temperature {self.temperature} is too small; it must be more than 0.")

    def check_layer(self, n_layers: int) -> None:
        """Stop if an encoder with so many layers has none of this number."""
        if not -n_layers - 1 <= self.alignment_layer <= n_layers:
            raise InputError(
                f"--alignment_layer {self.alignment_layer} does not exist; choose from 0 (the embeddings) to {n_layers} "
                "(the last, also -1)."
            )


@dataclass
class LoraArguments:
    """Training a small adapter in the place of the whole model."""

    use_lora: bool = field(
        default=False,
        metadata={
            "help": "Train an adapter (LoRA, by PEFT) of a few megabytes and leave the model as it is. Every script takes the "
            "adapter's folder or repository where it takes a model."
        },
    )
    lora_rank: int = field(default=16, metadata={"help": "Rank of its matrices: its size, and what it can learn."})
    lora_alpha: float | None = field(
        default=None, metadata={"help": "Its output is multiplied by alpha / rank. Default: twice the rank."}
    )
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["auto"],
        metadata={
            "help": "Linear modules that get one, by the ends of their names (`query value`); `auto`: all that the hidden "
            "state comes from."
        },
    )
    merge_adapter: bool = field(
        default=False, metadata={"help": "Write a plain model in the end: the adapter merged into what it stands on."}
    )

    def __post_init__(self) -> None:
        at_least(1, self, "lora_rank")
        if self.lora_alpha is not None and self.lora_alpha <= 0:
            raise InputError(f"--lora_alpha {self.lora_alpha} is too small; it must be more than 0.")
        if not self.use_lora:
            check_unused(self, "use_lora")
        if self.lora_alpha is None:
            self.lora_alpha = 2.0 * self.lora_rank


@dataclass
class ScriptTrainingArguments(TrainingArguments):
    """What all scripts that train do differently from `TrainingArguments`."""

    train_sampling_strategy: str = field(
        default="group_by_length",
        metadata={
            "help": "`group_by_length`: batches of inputs of like length, in random order: less padding, so a quicker "
            "pace; `random`: any inputs together, as in the paper.",
            "choices": ["group_by_length", "random", "sequential"],
        },
    )
    logging_steps: float = field(default=50, metadata={"help": "Log every so many steps."})
    dataloader_num_workers: int | None = field(
        default=None,
        metadata={
            "help": "Processes that make batches while the device works. Default: two beside an accelerator, none on a CPU."
        },
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Look for parameters without gradient in every step; there are none here."}
    )

    def __post_init__(self) -> None:
        if self.dataloader_num_workers is None:
            self.dataloader_num_workers = 2 if torch.accelerator.is_available() and not self.use_cpu else 0
        super().__post_init__()
        if self.hub_token:  # Trainer pickles these arguments beside the model, and pushes them with it
            os.environ["HF_TOKEN"], self.hub_token = self.hub_token, None
        # Pinning serves the copy to an accelerator; without one it is only a warning in every run.
        self.dataloader_pin_memory = self.dataloader_pin_memory and self.device.type != "cpu"


def checkpoint_to_resume(training: TrainingArguments, overwrite_output_dir: bool) -> str | None:
    """The checkpoint that `--resume_from_checkpoint` means: a folder, or `true` for the last one in the output folder.

    Raises:
        InputError: if there is none, or if nothing is to be resumed and the output folder is not empty.
    """
    output_dir, resume = Path(training.output_dir), training.resume_from_checkpoint
    if not resume or str(resume).lower() == "false":
        check_output_dir(output_dir, overwrite_output_dir)
        for stale in ("all_results.json", "train_results.json", "eval_results.json"):
            if training.should_save:
                (output_dir / stale).unlink(missing_ok=True)  # or old numbers would stand beside new ones
        return None
    if str(resume).lower() == "true":
        whole = [folder for folder in output_dir.glob("checkpoint-*") if is_whole(folder)]
        require(whole, [f"A checkpoint in {output_dir}"], "start without --resume_from_checkpoint")
        return str(max(whole, key=lambda folder: int(folder.name.rpartition("-")[2])))
    if not os.path.isdir(resume):
        raise InputError(
            f"There is no checkpoint {resume} to resume from; check the path, or say true for the last one."
        )
    if not is_whole(Path(resume)):
        raise InputError(
            f"The checkpoint {resume} is not whole: the run was killed while it was written; say true for the last one that is."
        )
    if Path(resume).resolve().parent != output_dir.resolve():
        check_output_dir(output_dir, overwrite_output_dir)
    return resume


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end: its state comes last."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def check_unused(arguments: object, switch: str, but: Sequence[str] = ()) -> None:
    """Stop if an argument is given that does nothing without a switch.

    Args:
        arguments: a dataclass whose fields all have defaults.
        switch: name of the argument that is missing.
        but: names of fields that are used without it, too.
    """
    for item in fields(arguments):
        usual = item.default if item.default_factory is MISSING else item.default_factory()
        value = getattr(arguments, item.name)
        if value != usual and item.name not in but:
            raise InputError(f"--{item.name} {value} does nothing without --{switch} (default: {usual}); add it.")


def at_least(least: int, arguments: object, name: str) -> None:
    """Stop if an argument that is given is smaller than it can be."""
    value = getattr(arguments, name)
    if value is not None and value < least:
        raise InputError(f"--{name} {value} is too small; it must be at least {least}.")


def require(value: object, arguments: Sequence[str], why: str) -> None:
    """Stop if none of the arguments was given."""
    if not value:
        raise InputError(f"{' or '.join(arguments)} is missing: {why}.")
