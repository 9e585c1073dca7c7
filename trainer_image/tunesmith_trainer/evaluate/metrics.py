"""The closed list of metrics. Each scores one answer from 0 to 100.

MacroF1 and BLEU are figures of all answers together (corpus.py); here they have a score for one
answer, for tables of items.
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from tunesmith.api.evaluation_suite import Metric

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU
    from sacrebleu.metrics.bleu import BLEUScore

#: At most this many different expected answers make a classification of a task.
MAXIMUM_CLASSES = 20

#: Larger integers are compared as they are: a float could not tell them from their neighbours.
LARGEST_EXACT = 2**53

ARTICLES = re.compile(r"\b(a|an|the)\b")
LETTERS_AND_DIGITS = re.compile(r"[^\W_]+")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def resolve(metric: Metric, expected: Sequence[str]) -> Metric:
    """What Auto means for these expected answers; any other metric is itself."""
    if metric is not Metric.AUTO:
        return metric
    if all(isinstance(parse_json(answer), dict) for answer in expected):
        return Metric.JSON_FIELD_F1
    return Metric.ACCURACY if len(set(expected)) <= MAXIMUM_CLASSES else Metric.TOKEN_F1


def score(metric: Metric, expected: str, answer: str) -> float:
    """Points of one answer."""
    return 100.0 * SCORERS[metric](expected, answer)


def exact_match(expected: str, answer: str) -> float:
    return float(expected.strip() == answer.strip())


def accuracy(expected: str, answer: str) -> float:
    """Equal but for case and white space."""
    return float(class_name(expected) == class_name(answer))


def class_name(text: str) -> str:
    """What a class is called, whatever its case and white space."""
    return " ".join(text.casefold().split())


def token_f1(expected: str, answer: str) -> float:
    """Overlap of words, as SQuAD counts it: no case, no punctuation, no articles."""
    return f1(Counter(words(expected)), Counter(words(answer)))


def json_field_f1(expected: str, answer: str) -> float:
    """Overlap of key and value pairs; nested values by their path. No valid JSON, no points."""
    wanted, given = parse_json(expected), parse_json(answer)
    if given is None and answer.strip() != "null":
        return 0.0
    return f1(Counter(fields(wanted)), Counter(fields(given)))


def rouge_l(expected: str, answer: str) -> float:
    """Longest common subsequence of words, as F-measure (ROUGE-L, as rouge_score counts it)."""
    return float(rouge_scorer().score(expected, answer)["rougeL"].fmeasure)


def sentence_bleu(expected: str, answer: str) -> float:
    """BLEU of one answer; orders of n-grams that it is too short for are left out."""
    # Rounding lifts equal sentences a little above 100.
    return min(1.0, float(bleu_score(expected, answer).score) / 100)


SCORERS: dict[Metric, Callable[[str, str], float]] = {
    Metric.EXACT_MATCH: exact_match,
    Metric.ACCURACY: accuracy,
    Metric.MACRO_F1: accuracy,
    Metric.TOKEN_F1: token_f1,
    Metric.JSON_FIELD_F1: json_field_f1,
    Metric.ROUGE_L: rouge_l,
    Metric.BLEU: sentence_bleu,
}


def f1(wanted: Counter[Any], given: Counter[Any]) -> float:
    """Harmonic mean of precision and recall. Nothing wanted and nothing given is right."""
    if not wanted or not given:
        return float(wanted == given)
    common = (wanted & given).total()
    return 2 * common / (wanted.total() + given.total())


def words(text: str) -> list[str]:
    return ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split()


def parse_json(text: str) -> object | None:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value


def fields(value: object, path: str = "") -> list[tuple[str, str]]:
    """Every leaf with its path. Empty objects and lists are leaves; order in lists counts."""
    match value:
        case dict() if value:
            return [leaf for key, inner in value.items() for leaf in fields(inner, f"{path}/{key}")]
        case list() if value:
            numbered = enumerate(value)
            return [leaf for index, inner in numbered for leaf in fields(inner, f"{path}/{index}")]
        case str():
            return [(path, f"text {value.strip()}")]
        case bool() | None:
            return [(path, json.dumps(value))]
        case int() if abs(value) > LARGEST_EXACT:
            return [(path, f"number {value}")]
        case int() | float():
            return [(path, f"number {float(value)!r}")]
        case _:
            return [(path, json.dumps(value))]


class Words:
    """Splits texts for ROUGE. The library's own rule knows no letters but a to z: to it a text in
    Greek is empty, and every answer equally wrong. On English both agree."""

    def tokenize(self, text: str) -> list[str]:
        return LETTERS_AND_DIGITS.findall(text.lower())


@cache
def rouge_scorer() -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=Words())


@cache
def bleu() -> BLEU:
    from sacrebleu.metrics import BLEU

    return BLEU(effective_order=True)


def bleu_score(expected: str, answer: str) -> BLEUScore:
    """One answer's BLEU with what it is made of: counts and totals of n-grams, and lengths."""
    return bleu().sentence_score(answer, [expected])
