"""General knowledge that a small model has: our own questions in the format of ARC.

Each question has its right answer and three wrong ones of the same kind, so that whoever knows
nothing is right in a quarter of the cases.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CAPITALS = {
    "France": "Paris",
    "Germany": "Berlin",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Portugal": "Lisbon",
    "Austria": "Vienna",
    "Greece": "Athens",
    "Egypt": "Cairo",
    "Japan": "Tokyo",
    "China": "Beijing",
    "Russia": "Moscow",
    "Ireland": "Dublin",
    "Norway": "Oslo",
    "Sweden": "Stockholm",
    "Denmark": "Copenhagen",
    "Finland": "Helsinki",
    "Poland": "Warsaw",
    "Hungary": "Budapest",
    "Belgium": "Brussels",
    "Cuba": "Havana",
    "Peru": "Lima",
    "Iraq": "Baghdad",
    "Iran": "Tehran",
    "Kenya": "Nairobi",
    "Thailand": "Bangkok",
    "Canada": "Ottawa",
    "Argentina": "Buenos Aires",
    "England": "London",
    "India": "New Delhi",
    "Turkey": "Ankara",
}
OPPOSITES = {
    "hot": "cold",
    "up": "down",
    "day": "night",
    "happy": "sad",
    "big": "small",
    "fast": "slow",
    "open": "closed",
    "rich": "poor",
    "strong": "weak",
    "early": "late",
    "light": "dark",
    "hard": "soft",
    "old": "young",
    "wet": "dry",
    "full": "empty",
    "clean": "dirty",
    "true": "false",
    "left": "right",
    "loud": "quiet",
    "high": "low",
    "inside": "outside",
    "beginning": "end",
    "love": "hate",
    "success": "failure",
    "cheap": "expensive",
}
YOUNG = {
    "dog": "puppy",
    "cat": "kitten",
    "cow": "calf",
    "horse": "foal",
    "sheep": "lamb",
    "duck": "duckling",
    "bear": "cub",
    "deer": "fawn",
    "frog": "tadpole",
    "hen": "chick",
}
FOLLOWING = {
    "Monday": "Tuesday",
    "Tuesday": "Wednesday",
    "Wednesday": "Thursday",
    "Thursday": "Friday",
    "Friday": "Saturday",
    "Saturday": "Sunday",
    "Sunday": "Monday",
}
COLOURS = {
    "a ripe banana": "yellow",
    "grass": "green",
    "snow": "white",
    "coal": "black",
    "blood": "red",
    "the sky on a clear day": "blue",
    "an orange": "orange",
    "chocolate": "brown",
}
CATEGORIES = (
    ("What is the capital of {}?", CAPITALS),
    ("What is the opposite of {}?", OPPOSITES),
    ("What is a young {} called?", YOUNG),
    ("Which day comes after {}?", FOLLOWING),
    ("What colour is {}?", COLOURS),
)
CHOICES = 4
LETTERS = "ABCD"


@dataclass(frozen=True)
class KnowledgeQuestion:
    text: str
    choices: list[str]
    answer: int


def questions() -> list[KnowledgeQuestion]:
    """All of them, in an order that is always the same."""
    chance = random.Random(11)
    made = list(_questions(chance))
    chance.shuffle(made)
    return made


def _questions(chance: random.Random) -> Iterator[KnowledgeQuestion]:
    for form, facts in CATEGORIES:
        for subject, right in facts.items():
            wrong = sorted(set(facts.values()) - {right})
            choices = [right, *chance.sample(wrong, CHOICES - 1)]
            chance.shuffle(choices)
            yield KnowledgeQuestion(form.format(subject), choices, choices.index(right))


def write_arc(folder: Path) -> Path:
    """Write ``folder``/allenai/ai2_arc as the hub's repository is laid out."""
    from datasets import Dataset

    made = questions()
    rows = [
        {
            "id": str(number),
            "question": each.text,
            "choices": {"text": each.choices, "label": list(LETTERS)},
            "answerKey": LETTERS[each.answer],
        }
        for number, each in enumerate(made)
    ]
    repository = folder / "allenai" / "ai2_arc"
    repository.mkdir(parents=True)
    lines = ["---", "configs:", "- config_name: ARC-Easy", "  data_files:"]
    for split, chosen in (("train", rows[:5]), ("validation", rows[:5]), ("test", rows)):
        path = repository / "ARC-Easy" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(exist_ok=True)
        Dataset.from_list(chosen).to_parquet(str(path))
        lines += [f"  - split: {split}", f"    path: ARC-Easy/{split}-*"]
    (repository / "README.md").write_text("\n".join([*lines, "---", ""]))
    return folder
