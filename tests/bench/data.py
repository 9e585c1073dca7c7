"""Finding near-duplicates on this machine's CPU, against datasketch: `make bench-data`.

20,000 documents, half of them copies of the others with up to a sixth of the words changed, so that
many pairs lie just above and just below a similarity of 0.8. What is true is computed exactly. Both
start from the same texts and end with the documents to drop. datasketch is used as its
documentation shows, MinHashLSH(threshold=0.8, num_perm=128), with its faster update_batch.
"""

from __future__ import annotations

import math
import random
import resource
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from datasketch import MinHash, MinHashLSH  # type: ignore[import-not-found,unused-ignore]
from tunesmith_trainer.data.near_duplicates import SHINGLE_WORDS, jaccard, near_duplicates
from tunesmith_trainer.data.word_grams import WordHashes, grams, hashed_words

from tests.bench.results import Figure, tell

DOCUMENTS = 20_000
MANY_DOCUMENTS = 100_000
ROUNDS = 3
SIMILARITY = 0.8
PERMUTATIONS = 128
#: Of the words of a copy, at most.
CHANGED_SHARE = 0.16
VOCABULARY = 30_000
WORDS = (60, 179)

Shingles = frozenset[str]


def main() -> None:
    documents = synthetic(DOCUMENTS)
    sets = [shingles(each) for each in documents]
    pairs = true_pairs(sets)
    truth = followers(len(documents), pairs)
    print(f"{len(documents):,} documents, {len(pairs):,} pairs at {SIMILARITY} or more", flush=True)
    # In turn, so that a slow moment of the machine meets both.
    rounds = [(timed(ours, documents), timed(datasketch, documents)) for _ in range(ROUNDS)]
    mine = min((each[0] for each in rounds), key=lambda run: run.cpu_seconds)
    theirs = min((each[1] for each in rounds), key=lambda run: run.cpu_seconds)
    many = timed(ours, synthetic(MANY_DOCUMENTS))
    growth = (many.cpu_seconds / MANY_DOCUMENTS) / (mine.cpu_seconds / DOCUMENTS)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    both = (("tunesmith", mine), ("datasketch", theirs))
    figures = [
        Figure("documents", DOCUMENTS, ""),
        Figure("of them near-duplicates of an earlier one", len(truth), "", ">= 1000"),
        *(Figure(f"{name}: wall clock", run.seconds, "s") for name, run in both),
        *(Figure(f"{name}: CPU time", run.cpu_seconds, "s") for name, run in both),
        Figure("tunesmith over datasketch", theirs.cpu_seconds / mine.cpu_seconds, "x", ">= 5"),
        Figure("tunesmith: recall", recall(mine, truth), "", ">= 0.99"),
        Figure("tunesmith: precision", precision(mine, truth), "", ">= 0.99"),
        Figure("datasketch: recall", recall(theirs, truth), ""),
        Figure("datasketch: precision", precision(theirs, truth), ""),
        Figure(f"tunesmith: {MANY_DOCUMENTS:,} documents, CPU time", many.cpu_seconds, "s"),
        # 1 is linear.
        Figure("time of a document there, to here", growth, "x", "< 2"),
        Figure("most memory of this process", memory, "GiB"),
    ]
    if not tell("data", figures):
        raise SystemExit("a bound is not kept")


@dataclass(frozen=True)
class Run:
    dropped: set[int]
    seconds: float
    #: Of all threads. Unlike the wall clock, it says the same on a busy machine.
    cpu_seconds: float


def timed(find: Callable[[Sequence[str]], set[int]], documents: Sequence[str]) -> Run:
    began, cpu_began = time.perf_counter(), time.process_time()
    dropped = find(documents)
    run = Run(dropped, time.perf_counter() - began, time.process_time() - cpu_began)
    print(
        f"    {find.__name__}: {run.seconds:.2f} s, {run.cpu_seconds:.2f} s of CPU, "
        f"{len(dropped):,} dropped",
        flush=True,
    )
    return run


def ours(documents: Sequence[str]) -> set[int]:
    """The trainer's own code, from texts to numbers."""
    words = hashed_words(documents, WordHashes())
    return set(near_duplicates(grams(words, SHINGLE_WORDS), SIMILARITY))


def datasketch(documents: Sequence[str]) -> set[int]:
    """A document is dropped if the index says that an earlier one is like it."""
    index = MinHashLSH(threshold=SIMILARITY, num_perm=PERMUTATIONS)
    dropped = set()
    for number, document in enumerate(documents):
        signature = MinHash(num_perm=PERMUTATIONS)
        signature.update_batch([each.encode() for each in shingles(document)])
        if index.query(signature):
            dropped.add(number)
        else:
            index.insert(number, signature)
    return dropped


def shingles(document: str) -> Shingles:
    words = document.split()
    return frozenset(
        " ".join(words[at : at + SHINGLE_WORDS]) for at in range(len(words) - SHINGLE_WORDS + 1)
    )


def synthetic(count: int) -> list[str]:
    """Half originals, half copies; words as frequent as in natural text (Zipf)."""
    source = random.Random(count)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(source.choices(letters, k=source.randint(2, 10))) for _ in range(VOCABULARY)]
    weights = [1 / (rank + 10) for rank in range(VOCABULARY)]
    originals = [
        source.choices(words, weights, k=source.randint(*WORDS)) for _ in range(count // 2)
    ]
    copies = []
    for original in originals:
        share = source.uniform(0, CHANGED_SHARE)
        copies.append(
            [source.choice(words) if source.random() < share else word for word in original]
        )
    documents = [" ".join(each) for each in originals + copies]
    source.shuffle(documents)
    return documents


def true_pairs(sets: Sequence[Shingles]) -> list[tuple[int, int]]:
    """Every pair that is so similar, without comparing all.

    Sets with a Jaccard similarity of s have one of their rarest n - ceil(s n) + 1 members in
    common (Bayardo, Ma, Srikant: Scaling up all pairs similarity search, 2007).
    """
    frequency = Counter(each for members in sets for each in members)
    index: dict[str, list[int]] = defaultdict(list)
    pairs = []
    for number, members in enumerate(sets):
        ranked = sorted(members, key=lambda each: (frequency[each], each))
        rarest = ranked[: len(ranked) - math.ceil(SIMILARITY * len(ranked)) + 1]
        candidates = {other for each in rarest for other in index[each]}
        pairs += [
            (other, number) for other in candidates if jaccard(members, sets[other]) >= SIMILARITY
        ]
        for each in rarest:
            index[each].append(number)
    return pairs


def followers(count: int, pairs: Sequence[tuple[int, int]]) -> set[int]:
    """All documents but the first of each group of connected ones."""
    lowest = list(range(count))

    def find(number: int) -> int:
        while lowest[number] != number:
            lowest[number] = lowest[lowest[number]]
            number = lowest[number]
        return number

    for one, other in pairs:
        low, high = sorted((find(one), find(other)))
        lowest[high] = low
    return {number for number in range(count) if find(number) != number}


def recall(run: Run, truth: set[int]) -> float:
    return len(run.dropped & truth) / len(truth)


def precision(run: Run, truth: set[int]) -> float:
    return len(run.dropped & truth) / max(1, len(run.dropped))


if __name__ == "__main__":
    main()
