"""What is sent to the API server."""

from __future__ import annotations

import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from tunesmith.kube.cluster import as_yaml


@given(st.text())
@example("a status about a row with 💥 in it")
@example('\u2028\x85\ufeff\x7f\x00"\\ \\ud83d\\udca5')
def test_whatever_a_status_says_is_applied_as_it_is(text: str) -> None:
    """The API server reads what is applied as YAML."""
    assert yaml.safe_load(as_yaml({text: [text]})) == {text: [text]}
