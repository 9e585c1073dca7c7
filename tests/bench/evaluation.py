"""Evaluating an adapter beside its base model, on this machine's CPU: `make bench-eval`.

The trainer loads once, asks both sides, and keeps what the base model said. Its peer is
lm-evaluation-harness itself, run twice: without and with the adapter. Both answer the same prompts
in the same batches, so their log-likelihoods have to be equal to the last bit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith_trainer.evaluate.measured import Side

from tests.bench.evaluation_runs import Answers, Likelihoods, Run, Runs
from tests.bench.evaluation_stage import small_stage
from tests.bench.results import FOLDER, Figure, tell

#: Questions of each of the 57 subjects.
ITEMS = 3
#: Prompts in one batch of the trainer, where the vocabulary is small; lm-eval gets the same.
ROWS = 16
ROUNDS = 2


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    log = FOLDER / "eval.log"
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as work:
        runs = Runs(small_stage(Path(work), ITEMS), Path(work), log)
        runs.prepare()
        rounds = [one_round(runs, number, ROWS) for number in range(ROUNDS)]
    if not tell("eval", [*speeds(rounds), *agreement(rounds)]):
        raise SystemExit("a bound is not kept")


@dataclass(frozen=True)
class Round:
    """Every way once, one after the other."""

    base: Run
    adapter: Run
    #: Both sides asked, the base model's answers kept.
    cold: Run
    #: Only the adapter asked.
    cached: Run

    @property
    def items(self) -> int:
        return len(self.base.answers)


def one_round(runs: Runs, number: int, rows: int) -> Round:
    """In turn, so that a slow moment of the machine meets all."""
    kept = runs.folder / f"base-results-{number}"
    base = runs.lm_eval(f"base-{number}", Side.BASE, rows)
    cold = runs.paired(f"cold-{number}", kept)
    adapter = runs.lm_eval(f"adapter-{number}", Side.ADAPTER, rows)
    cached = runs.paired(f"cached-{number}", kept)
    found = Round(base, adapter, cold, cached)
    print(
        f"    lm-eval, {rows} at a time: {base.seconds:.1f} s and {adapter.seconds:.1f} s; "
        f"paired: {cold.seconds:.1f} s, with the base cached {cached.seconds:.1f} s",
        flush=True,
    )
    return found


def speeds(rounds: Sequence[Round]) -> list[Figure]:
    """Of every way its fastest run: what made another one slower was not its own."""
    items = rounds[0].items
    base = min(each.base.seconds for each in rounds)
    adapter = min(each.adapter.seconds for each in rounds)
    cold = min(each.cold.seconds for each in rounds)
    cached = min(each.cached.seconds for each in rounds)
    apart = base + adapter
    return [
        Figure("items, asked on both sides", items, "", ">= 1"),
        *seconds_and_speed("lm-eval twice", apart, items),
        *seconds_and_speed("paired, both sides asked", cold, items),
        *seconds_and_speed("paired, base cached", cached, items),
        Figure("paired, both sides asked, over lm-eval twice", apart / cold, "x"),
        Figure("paired, base cached, over lm-eval twice", apart / cached, "x", ">= 1.6"),
    ]


def seconds_and_speed(name: str, seconds: float, items: int) -> list[Figure]:
    return [
        Figure(f"{name}: wall clock", seconds, "s"),
        Figure(f"{name}: items a second", items / seconds, "items/s"),
    ]


def agreement(rounds: Sequence[Round]) -> list[Figure]:
    """Against two loads of their own: one of the base model, one with the adapter."""
    compared = 0
    largest = 0.0
    others = 0
    for each in rounds:
        likelihoods = each.base.likelihoods | each.adapter.likelihoods
        answers = each.base.answers | each.adapter.answers
        adapter_only = {key: likelihoods[key] for key in each.adapter.likelihoods}
        largest = max(
            largest,
            largest_difference(each.cold.likelihoods, likelihoods),
            largest_difference(each.cached.likelihoods, adapter_only),
        )
        compared += len(each.cold.likelihoods) + len(each.cached.likelihoods)
        others += different(each.cold.answers, answers) + different(each.cached.answers, answers)
    changed = sum(
        rounds[0].cold.answers[Side.BASE, prompt] != answer
        for (side, prompt), answer in rounds[0].cold.answers.items()
        if side is Side.ADAPTER
    )
    return [
        Figure("log-likelihoods compared", compared, ""),
        Figure("largest difference of log-likelihoods", largest, "nat", "== 0"),
        Figure("answers that are not lm-eval's", others, "", "== 0"),
        # Were there none, nothing would tell one side from the other.
        Figure("answers that the adapter changes", changed, "", ">= 1"),
    ]


def largest_difference(ours: Likelihoods, theirs: Likelihoods) -> float:
    """Raises ValueError unless both have the same prompts and choices, and there are some."""
    if not ours or ours.keys() != theirs.keys():
        raise ValueError("the two ways were not asked the same")
    return max(abs(ours[key] - theirs[key]) for key in ours)


def different(ours: Answers, theirs: Answers) -> int:
    if not ours or ours.keys() != theirs.keys():
        raise ValueError("the two ways were not asked the same")
    return sum(ours[key] != theirs[key] for key in ours)


if __name__ == "__main__":
    main()
