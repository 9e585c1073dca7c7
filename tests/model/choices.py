"""What hypothesis chooses from."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import strategies as st
from tunesmith.api.verdict import Verdict

from tests.model.connection import Faults
from tests.model.manifests import JobShape
from tests.model.played_operator import WATCHED
from tests.model.trainer import BELOW_BAND, IN_BAND, Success

KINDS_READ = [
    "FineTuneJob",
    "EvalRun",
    "AdapterDeployment",
    "Job",
    "Pod",
    "ConfigMap",
    "Deployment",
]

SHAPES = st.builds(
    JobShape,
    review=st.booleans(),
    preflight=st.sampled_from(["Skip", "Advise", "Require"]),
    retry=st.booleans(),
    queued=st.booleans(),
    nodes=st.sampled_from([1, 2]),
    backoff_limit=st.sampled_from([1, 0, 2]),
    shares_name=st.booleans(),
    ttl=st.sampled_from([None, None, 1200]),
    has_output=st.booleans(),
)
SUCCESSES = st.builds(
    Success, verdict=st.sampled_from(list(Verdict)), base=st.sampled_from([IN_BAND, BELOW_BAND])
)
FAULTS = st.builds(
    Faults,
    crash_before=st.none() | st.integers(0, 6),
    lags=st.dictionaries(st.sampled_from(WATCHED), st.integers(1, 12), max_size=3),
    touched=st.booleans(),
    skew=st.sampled_from([0, 0, -300, 300]).map(lambda seconds: timedelta(seconds=seconds)),
)
