"""What truly happened in the pods, whatever the operator makes of it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from tunesmith.api.trainer_contract import TrainingOutcome
from tunesmith.api.verdict import Verdict


@dataclass
class Truth:
    """Kept by the model, read by the invariants; the operator never sees it."""

    #: Jobs that failed through no fault of spec, data or cluster, by owner's uid and stage.
    failures: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    #: Digests of the data that was made ready, by the FineTuneJob's uid.
    prepared: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    #: What was trained, by the FineTuneJob's uid and the artifact's digest.
    trained: dict[str, dict[str, TrainingOutcome]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    #: What was measured of an artifact, by its digest.
    verdicts: dict[str, set[Verdict]] = field(default_factory=lambda: defaultdict(set))
    #: How often the prepared data of a FineTuneJob was changed behind its back.
    changes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
