"""The base model's answers, kept from one evaluation to the next.

What a base model answers depends on its weights, on the prompts (with template, solved examples
and bounds) and on the libraries; all of them are in the name of the file, so a change of any makes
another file. Each answer stands under the key of its question.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from tunesmith import __version__
from tunesmith.api.digests import file_digest

from tunesmith_trainer.evaluate.measured import Answer, Question
from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.output import OutputStore

log = logging.getLogger(__name__)

LIBRARIES = ("lm_eval", "transformers", "tokenizers", "torch", "sacrebleu", "rouge_score")
#: How the model's text becomes tokens and back; the base model's digest is of its weights.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")


def environment(base_folder: Path, stop_tokens: Iterable[int], device: str, kind: str) -> str:
    """What else the answers and their scores depend on, besides weights and questions.

    ``kind`` is the type that is computed in.
    """
    libraries = [f"{name} {version(name)}" for name in LIBRARIES]
    files = [
        f"{name} {file_digest(base_folder / name)}"
        for name in TOKENIZER_FILES
        if (base_folder / name).is_file()
    ]
    stops = [str(each) for each in sorted(stop_tokens)]
    return "\n".join([f"tunesmith {__version__}", *libraries, *files, *stops, device, kind])


@dataclass
class BaseResults:
    """The answers of one base model. Without a store nothing is kept beyond this run."""

    store: OutputStore | None
    base_model_digest: str
    environment: str
    _known: dict[str, dict[str, Answer]] = field(default_factory=dict)

    def recall(self, questions: Sequence[Question]) -> dict[str, Answer]:
        """The answers that are known to any of these questions, by key."""
        if self.store is None:
            return {}
        name = self._file(questions)
        if name not in self._known:
            self._known[name] = read(self.store, name)
        return self._known[name]

    def remember(self, questions: Sequence[Question], answers: dict[str, Answer]) -> None:
        """Keep answers to some of these questions, as far as there is room."""
        if self.store is None:
            return
        name = self._file(questions)
        # Read anew: another run may have asked the same meanwhile.
        known = self.recall(questions) | read(self.store, name) | answers
        lines = [
            json.dumps({"key": key, "text": answer.text, "score": answer.score})
            for key, answer in sorted(known.items())
        ]
        self._known[name] = known
        try:
            self.store.write(name, "".join(f"{line}\n" for line in lines))
        except TrainerError as error:
            log.warning("base answers are not kept: %s", error.message)

    def _file(self, questions: Sequence[Question]) -> str:
        identity = hashlib.sha256(self.environment.encode())
        for question in questions:
            identity.update(question.key.encode())
        model = self.base_model_digest.removeprefix("sha256:")[:16]
        return f"{model}/{identity.hexdigest()[:16]}.jsonl"


def read(store: OutputStore, name: str) -> dict[str, Answer]:
    """The answers in a file; none if it cannot be read, for they can be had again."""
    try:
        lines = [json.loads(line) for line in (store.read(name) or b"").decode().splitlines()]
        return {each["key"]: Answer(each["text"], each["score"]) for each in lines}
    except (TrainerError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be used (%s): the base model is asked again", name, error)
        return {}
