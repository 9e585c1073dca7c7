"""Questions of our own in MMLU's format: 57 subjects, laid out as the hub repository cais/mmlu."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

EXAMPLES = 5


def mmlu_subjects() -> list[str]:
    """The subjects that the pinned lm-eval knows."""
    import lm_eval.tasks

    folder = Path(lm_eval.tasks.__file__).parent / "mmlu" / "default"
    return sorted(path.stem.removeprefix("mmlu_") for path in folder.glob("mmlu_*.yaml"))


def question(subject: str, chance: random.Random) -> dict[str, Any]:
    """A sum. Short: five of them have to fit into a small context."""
    left, right, answer = chance.randrange(90), chance.randrange(9), chance.randrange(4)
    choices = [str(left + right + number - answer) for number in range(4)]
    text = f"{left}+{right}?"
    return {"question": text, "subject": subject, "choices": choices, "answer": answer}


def write_mmlu(folder: Path, subjects: Sequence[str], sizes: Sequence[int]) -> Path:
    """Write ``folder``/cais/mmlu; the subjects have as many test rows as ``sizes``, in turn."""
    from datasets import ClassLabel, Dataset, Features, List, Value

    features = Features(
        {
            "question": Value("string"),
            "subject": Value("string"),
            "choices": List(Value("string")),
            "answer": ClassLabel(names=["A", "B", "C", "D"]),
        }
    )
    repository = folder / "cais" / "mmlu"
    configs = []
    for number, subject in enumerate(subjects):
        chance = random.Random(subject)
        rows = {"test": sizes[number % len(sizes)], "dev": EXAMPLES}
        for split, count in rows.items():
            path = repository / subject / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            made = [question(subject, chance) for _ in range(count)]
            Dataset.from_list(made, features=features).to_parquet(str(path))
        configs += [f"- config_name: {subject}", "  data_files:"]
        for split in rows:
            configs += [f"  - split: {split}", f"    path: {subject}/{split}-*"]
    readme = "\n".join(["---", "configs:", *configs, "---", ""])
    (repository / "README.md").write_text(readme)
    return folder
