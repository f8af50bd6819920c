"""The arguments about the examples of a task: where they are, in which languages, and which of them are used."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from utils.core.arguments import arg, is_language
from utils.core.errors import InputError
from utils.core.tables import languages_of_files
from utils.parallel.sides import ENGLISH


@dataclass
class TaskDataArguments:
    """Training and evaluation data. A script names the data set and its columns."""

    dataset_name: str | None = arg(None, help="Training data: a data set on the Hub or in a local folder.")
    dataset_config_name: str | None = arg(
        None, help="Its configuration; {language} stands for the language. Default: the first that exists."
    )
    eval_dataset_name: str | None = arg(None, help="Data set for evaluation. Default: --dataset_name.")
    eval_dataset_config_name: str | None = arg(None, help="Its configuration; {language} stands for the language.")
    train_split: str = arg("train", help="Split for training.")
    validation_split: str = arg("validation", help="Split for --do_eval.")
    test_split: str = arg("test", help="Split for --do_predict.")
    train_file: str | None = arg(None, help="Training data in a file: .jsonl, .csv, .tsv, .parquet; also .gz.")
    validation_file: list[str] | None = arg(None, help="Files for --do_eval: `en=dev.en.jsonl hi=dev.hi.jsonl`.")
    test_file: list[str] | None = arg(None, help="Files for --do_predict, LANGUAGE=FILE each.")
    train_language: str = arg(ENGLISH, help="Code of the training language.", hyperparameter=True, variant=True)
    few_shot: list[str] = arg(
        default_factory=list,
        help="Few-shot: add the first N training examples of these languages, `hi=100 ru=100`. They are then not "
        "zero-shot.",
        hyperparameter=True,
        variant=True,
    )
    few_shot_file: list[str] | None = arg(
        None,
        help="Files of these examples, LANGUAGE=FILE each. Default: --train_split of the data set for evaluation.",
    )
    eval_languages: list[str] = arg(
        default_factory=list,
        help="Codes of the languages for evaluation; all without training data are zero-shot. Default: those of "
        "the files, else en and the languages that the model was adjusted to, else en es ru vi hi (PAWS-X: en de es fr ja ko zh).",
    )
    select_on: str | None = arg(
        None,
        help="With --eval_strategy, keep the checkpoint that is best in this language. Default: the training "
        "language. Any other is an oracle, since zero-shot means that there is no labeled data to select by.",
    )
    max_train_samples: int | None = arg(None, help="Train on the first N examples.", hyperparameter=True, at_least=1)
    max_eval_samples: int | None = arg(None, help="Use the first N of each language for --do_eval.", at_least=1)
    max_predict_samples: int | None = arg(None, help="Use the first N of each language for --do_predict.", at_least=1)
    max_seq_length: int | None = arg(
        None,
        help="Truncate inputs to this number of tokens; words beyond count as wrong. Default: 128.",
        hyperparameter=True,
        at_least=1,
    )
    skip_unlabeled: bool = arg(
        False,
        help="Leave out rows without a label (empty, null, - or -1, as in SNLI) or, for QA, without an answer.",
        aliases=["--skip_unlabelled"],
    )
    baseline_run: str | None = arg(
        None,
        help="Output folder of another run on the same data, for example of the model before adjustment: report.html then "
        "shows which examples the two predict differently.",
    )
    overwrite_output_dir: bool = arg(False, help="Write into --output_dir even if it is not empty.")

    USUAL_LANGUAGES: ClassVar[Sequence[str]] = ("es", "ru", "vi", "hi")  # the paper's

    def __post_init__(self) -> None:
        self.eval_languages = list(dict.fromkeys(self.eval_languages))
        self.assumes_languages = not self.eval_languages
        self._check_few_shot()
        if self.few_shot_file and not self.few_shot:
            raise InputError(
                "--few_shot_file has no effect without --few_shot; add it, for example --few_shot hi=100."
            )

    def _check_few_shot(self) -> None:
        for value in self.few_shot:
            language, _, number = value.partition("=")
            if not is_language(language) or not re.fullmatch("0*[1-9][0-9]{0,8}", number, re.ASCII):
                raise InputError(f"--few_shot {value} is not LANGUAGE=NUMBER; write it like hi=100.")
        if len(self.trained_languages()) <= len(self.few_shot):
            raise InputError(
                f"--few_shot {' '.join(self.few_shot)}: name each language once, and not --train_language."
            )

    def take_training_languages(self, record: Mapping[str, Any]) -> None:
        """Set the languages with training examples to those of a model that is only measured, from its `run.json`."""
        trained = record.get("arguments") or {}
        if record.get("task_name") and self.train_language == ENGLISH:
            self.train_language = trained.get("train_language") or ENGLISH
            self.few_shot = list(trained.get("few_shot") or ())
            self._check_few_shot()

    def shots(self) -> dict[str, int]:
        """The number of training examples in each language of `--few_shot`."""
        return {language: int(number) for language, _, number in (value.partition("=") for value in self.few_shot)}

    def trained_languages(self) -> list[str]:
        """The languages that have training examples."""
        return list(dict.fromkeys([self.train_language, *self.shots()]))

    def assume_languages(self, adjusted_to: Sequence[str]) -> None:
        """Set `eval_languages` if the command line does not name them; `adjusted_to` are those of the model."""
        if self.assumes_languages:
            of_files = languages_of_files(self.validation_file or self.test_file)
            self.eval_languages = of_files or [self.train_language, *(adjusted_to or self.USUAL_LANGUAGES)]
            self.eval_languages = list(dict.fromkeys(self.eval_languages))

    def evaluated_data_set(self) -> tuple[str | None, str | None]:
        """Name and configuration of the data set for evaluation: by default those for training."""
        if self.eval_dataset_name is None:
            return self.dataset_name, self.eval_dataset_config_name or self.dataset_config_name
        return self.eval_dataset_name, self.eval_dataset_config_name

    def limit(self, purpose: str) -> int | None:
        """How many examples of each language are used for `validation` or `test`; None for all."""
        return self.max_eval_samples if purpose == "validation" else self.max_predict_samples

    def set_names(self) -> list[str]:
        """Names of the evaluated sets, as in metrics and files."""
        return self.eval_languages

    def languages_of(self, name: str) -> Sequence[str]:
        """The languages of the evaluated set with a name."""
        return [name]

    def zero_shot(self, names: Iterable[str]) -> list[str]:
        """The evaluated sets that have a language without training examples."""
        return [name for name in names if not set(self.languages_of(name)) <= set(self.trained_languages())]

    def other_metrics(self) -> list[str]:
        """What is measured besides the metrics of the task."""
        return ["loss"]

    def languages(self) -> list[str]:
        """All languages of which evaluation data is read."""
        return self.eval_languages
