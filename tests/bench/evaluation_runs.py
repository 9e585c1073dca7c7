"""The two ways to compare an adapter with its base model, each in processes of its own.

The paired way is the trainer's: one process, one load. The other is lm-eval's command line, once
for the base model and once with ``peft=``. Everything counts that a user waits for: from the start
of the process, with imports and loading, until its answers are written.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith_trainer.evaluate.measured import Side

from tests.bench.evaluation_stage import Stage, plan

#: Which side, which prompt (sha256), which choice → log-likelihood.
Likelihoods = dict[tuple[Side, str, str], float]
#: Which side, which prompt (sha256) → the choice that it answered.
Answers = dict[tuple[Side, str], str]


@dataclass(frozen=True)
class Run:
    """What came out of one process."""

    #: Wall clock.
    seconds: float
    likelihoods: Likelihoods
    answers: Answers


@dataclass(frozen=True)
class Runs:
    """Where runs take place."""

    stage: Stage
    folder: Path
    log: Path

    def paired(self, name: str, base_results: Path) -> Run:
        """An evaluation as the operator starts it. What is in ``base_results`` is not asked."""
        folder = self._new_folder(name)
        planned, heard, answers = folder / "plan.json", folder / "heard.jsonl", folder / "answers"
        base_results.mkdir(exist_ok=True)
        planned.write_text(plan(self.stage, answers, base_results))
        seconds = self._time(
            f"tests.bench.listening_trainer {heard} --plan {planned} --port 0 "
            f"--termination {folder / 'end.json'}",
            Path.cwd(),
        )
        likelihoods = {
            (Side(side), sha256(prompt), choice.strip()): float(value)
            for side, prompt, choice, value in read_lines([heard])
        }
        return Run(seconds, likelihoods, chosen_by_trainer(answers))

    def lm_eval(self, name: str, side: Side, rows: int) -> Run:
        """lm-eval as its documentation says, ``rows`` prompts at a time."""
        folder = self._new_folder(name)
        arguments = f"pretrained={self.stage.model},dtype={self.stage.compute_type}"
        if side is Side.ADAPTER:
            arguments += f",peft={self.stage.adapter}"
        seconds = self._time(
            f"lm_eval run --model hf --model_args {arguments} --tasks mmlu --num_fewshot 5 "
            f"--batch_size {rows} --log_samples --output_path {folder}",
            # Where cais/mmlu is a folder, it is not looked for on the hub.
            self.stage.hub,
        )
        samples = read_lines(sorted(folder.glob("*/samples_*.jsonl")))
        likelihoods = {
            (side, sample["prompt_hash"], choice): float(said[0])
            for sample in samples
            for choice, said in zip("ABCD", sample["filtered_resps"], strict=True)
        }
        answers = {
            (side, sample["prompt_hash"]): max(
                "ABCD", key=lambda choice: likelihoods[side, sample["prompt_hash"], choice]
            )
            for sample in samples
        }
        return Run(seconds, likelihoods, answers)

    def prepare(self) -> None:
        """Let the datasets library copy lm-eval's data, and Python compile, before a clock runs."""
        program = (
            "import lm_eval.models.huggingface, datasets, pathlib\n"
            "for each in sorted(pathlib.Path('cais/mmlu').iterdir()):\n"
            "    each.is_dir() and datasets.load_dataset('cais/mmlu', each.name)\n"
        )
        self._run([sys.executable, "-c", program], self.stage.hub)

    def _new_folder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        return folder

    def _time(self, module: str, where: Path) -> float:
        began = time.monotonic()
        self._run([sys.executable, "-m", *module.split()], where)
        return time.monotonic() - began

    def _run(self, command: Sequence[str], where: Path) -> None:
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(self.folder / "huggingface"),
        }
        with self.log.open("a") as log:
            log.write(f"\n{' '.join(command)}\n")
            log.flush()
            done = subprocess.run(
                command, cwd=where, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        if done.returncode:
            end = self.log.read_text(errors="replace")[-3000:]
            raise SystemExit(f"{' '.join(command)} failed, see {self.log}:\n{end}")


def chosen_by_trainer(folder: Path) -> Answers:
    (suite,) = json.loads((folder / "results.json").read_text())["suites"]
    return {
        (side, sha256(item["prompt"])): item[side]["answer"]
        for item in read_lines([folder / suite["itemsFile"]["name"]])
        for side in (Side.BASE, Side.ADAPTER)
    }


def read_lines(paths: Sequence[Path]) -> list[Any]:
    return [
        json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()
    ]


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
