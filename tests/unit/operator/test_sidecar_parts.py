"""The small parts of the sidecar: proof, routes, the start file, memory, metrics."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tunesmith.api.serving_contract import (
    AdapterReport,
    AdapterState,
    DesiredAdapter,
    DesiredState,
    Grant,
    ReplicaReport,
    Route,
    ServedBase,
    Target,
    Traffic,
)
from tunesmith.sidecar.memory import Memory, signature
from tunesmith.sidecar.metrics import exposition
from tunesmith.sidecar.probe import GENERAL_PROMPTS, LONGEST_PROMPT, difference, prompts
from tunesmith.sidecar.proxy import routing_table
from tunesmith.sidecar.start_file import start_file, write_whole

Answer = dict[str, float]

# Differences of answers

TOKENS = "abcdefgh"
LOG_PROBABILITIES = st.floats(-20, 0)
WHOLE = st.fixed_dictionaries(dict.fromkeys(TOKENS, LOG_PROBABILITIES))
LISTED = st.dictionaries(st.sampled_from(TOKENS), LOG_PROBABILITIES)


def top(answer: Answer, count: int) -> Answer:
    return dict(sorted(answer.items(), key=lambda each: -each[1])[:count])


@settings(deadline=None)
@given(LISTED, LISTED)
def test_a_difference_is_the_same_from_both_sides(one: Answer, other: Answer) -> None:
    assert difference(one, other) == difference(other, one) >= 0


@settings(deadline=None)
@given(LISTED)
def test_equal_answers_do_not_differ(answer: Answer) -> None:
    assert difference(answer, dict(answer)) == 0


@settings(max_examples=300, deadline=None)
@given(WHOLE, WHOLE, st.integers(1, 8), st.integers(1, 8))
def test_cut_lists_never_show_more_than_the_true_difference(
    one: Answer, other: Answer, here: int, there: int
) -> None:
    true = max(abs(one[token] - other[token]) for token in TOKENS)
    assert difference(top(one, here), top(other, there)) <= true


@settings(deadline=None)
@given(WHOLE, WHOLE)
def test_whole_lists_show_the_true_difference(one: Answer, other: Answer) -> None:
    assert difference(one, other) == max(abs(one[token] - other[token]) for token in TOKENS)


@pytest.mark.parametrize("other", [{}, {"b": -1.0}])
def test_an_empty_answer_shows_no_difference(other: Answer) -> None:
    assert difference({}, other) == 0


# Prompts


def test_questions_of_the_training_are_asked_after_one_that_suits_all(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"content": f"question {each}"}, {"content": "answer"}]} for each in range(9)
    ]
    rows[1]["messages"][0]["content"] = "x" * (LONGEST_PROMPT + 9)
    (tmp_path / "heldout.jsonl").write_text("\n".join(map(json.dumps, rows)))
    first, *asked = prompts(tmp_path)
    assert first == GENERAL_PROMPTS[0]
    assert asked[:1] == ["question 0\n"]
    assert asked[1] == "x" * LONGEST_PROMPT + "\n"
    assert tuple(asked[4:]) == GENERAL_PROMPTS[1:]


@pytest.mark.parametrize(
    "text",
    [
        *(None, "", "no json", "[]", "{}", '{"messages": 7}', '{"messages": [1, 2]}', "\udcff"),
        *("[" * 9999, '{"messages": ' + "9" * 9999 + "}"),
    ],
    ids=lambda text: repr(text)[:30],
)
def test_unreadable_questions_leave_the_general_ones(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "heldout.jsonl").write_text(text, errors="surrogateescape")
    assert tuple(prompts(tmp_path)) == GENERAL_PROMPTS


# Routes


def desired(*routes: Route, **fields: object) -> DesiredState:
    values = {"base": ServedBase(name="smol"), "max_lora_rank": 16, "routes": list(routes)}
    return DesiredState.model_validate(values | fields)


SPLIT = Route(name="t", targets=[Target(model="t@1", weight=90), Target(model="t@2", weight=10)])


def targets(state: DesiredState, *ready: str) -> dict[str, dict[str, int]]:
    routes = routing_table(state, ready, complete=True)["routes"]
    return {
        name: {each["model"]: each["weight"] for each in found} for name, found in routes.items()
    }


def test_every_proven_version_and_the_base_answer_to_their_own_names() -> None:
    assert targets(desired(), "t@2", "t@1") == {
        "smol": {"smol": 100},
        "t@1": {"t@1": 100},
        "t@2": {"t@2": 100},
    }


def test_a_name_stands_for_its_versions() -> None:
    assert targets(desired(SPLIT), "t@1", "t@2")["t"] == {"t@1": 90, "t@2": 10}


def test_the_share_of_a_version_that_is_not_ready_goes_to_the_others() -> None:
    assert targets(desired(SPLIT), "t@1")["t"] == {"t@1": 90}


def test_a_name_without_a_ready_version_is_unknown() -> None:
    assert "t" not in targets(desired(SPLIT))


def test_a_version_without_a_share_is_no_target() -> None:
    none = Route(name="t", targets=[Target(model="t@1", weight=0)])
    assert "t" not in targets(desired(none), "t@1")


def test_a_name_may_stand_for_the_base_that_holds_it() -> None:
    merged = Route(name="t", targets=[Target(model="smol")])
    assert targets(desired(merged))["t"] == {"smol": 100}


def test_grants_and_the_way_to_the_base_are_passed_on() -> None:
    grants = [Grant(client="ann", models=["t*"])]
    state = desired(grants=grants, base_address="10.1.2.3:80")
    table = routing_table(state, [], complete=False)
    assert table["grants"] == {"ann": ["t*"]}
    assert (table["base_address"], table["complete"]) == ("10.1.2.3:80", False)
    assert routing_table(desired(), [], complete=True)["grants"] is None


def test_the_digest_changes_with_the_table_alone() -> None:
    one = routing_table(desired(SPLIT), ["t@1", "t@2"], complete=True)
    same = routing_table(desired(SPLIT), ["t@2", "t@1"], complete=True)
    others = [
        routing_table(desired(SPLIT), ["t@1"], complete=True),
        routing_table(desired(SPLIT), ["t@1", "t@2"], complete=False),
        routing_table(desired(SPLIT, grants=[]), ["t@1", "t@2"], complete=True),
    ]
    assert one == same
    assert len({each["digest"] for each in (one, *others)}) == 4


# The start file


def module(name: str) -> DesiredAdapter:
    return DesiredAdapter(model=f"{name}@1", path=f"/mnt/{name}", digest="sha256:1")


def test_modules_are_added_to_the_options() -> None:
    server = "model: /base\nenable-lora: true\ncompilation-config: {level: 0}\n"
    found = yaml.safe_load(start_file(server, [module("a"), module('b"')]))
    modules = found.pop("lora-modules")
    assert found == yaml.safe_load(server)
    assert [json.loads(each) for each in modules] == [
        {"name": "a@1", "path": "/mnt/a"},
        {"name": 'b"@1', "path": '/mnt/b"'},
    ]


def test_long_modules_stay_on_one_line() -> None:
    text = start_file("enable-lora: true\n", [module("a" * 500)])
    assert len(text.splitlines()) == 3


@pytest.mark.parametrize(
    ("server", "modules"), [("enable-lora: true\n", []), ("model: /merged\n", [module("a")])]
)
def test_without_modules_or_adapters_the_options_stay_alone(
    server: str, modules: list[DesiredAdapter]
) -> None:
    assert yaml.safe_load(start_file(server, modules)) == yaml.safe_load(server)


def test_equal_text_is_not_written_again(tmp_path: Path) -> None:
    file = tmp_path / "run" / "vllm.yaml"
    write_whole(file, "one")
    before = file.stat().st_ino
    write_whole(file, "one")
    assert file.stat().st_ino == before
    write_whole(file, "two")
    assert file.read_text() == "two"
    assert [each.name for each in file.parent.iterdir()] == ["vllm.yaml"]


# Memory


def test_what_was_kept_is_recalled(tmp_path: Path) -> None:
    memory = Memory(passed={"a@1": "x"}, start=2, was_up=True, complete=True, proven={"a@1": "/a"})
    memory.keep(tmp_path / "memory.json")
    assert Memory.recall(tmp_path / "memory.json") == memory
    assert Memory.recall(tmp_path / "nothing.json") == Memory()


def test_a_signature_changes_with_files_and_with_what_they_are_compared_to(tmp_path: Path) -> None:
    adapter = DesiredAdapter(model="a@1", path=str(tmp_path), digest="sha256:1")
    judged = adapter.model_copy(update={"base_model_digest": "sha256:2"})
    seen = {signature(adapter, 16), signature(adapter, 32), signature(judged, 16)}
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_text("content")
        seen.add(signature(adapter, 16))
    assert len(seen) == 5
    assert signature(adapter, 16) in seen


# Metrics

SAMPLE = re.compile(r'^(?P<name>[a-z_]+)(\{(?P<label>[a-z]+)="(?P<of>[^"]*)"\})? (?P<value>\S+)$')


def samples(text: str) -> dict[tuple[str, str | None], float]:
    """What a scrape reads. Every sample follows the type of its metric."""
    assert text.endswith("\n")
    typed, found = set(), {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            typed.add(line.split()[2])
        elif not line.startswith("# HELP "):
            match = SAMPLE.match(line)
            assert match, line
            assert match["name"] in typed
            found[match["name"], match["of"]] = float(match["value"])
    return found


def test_metrics_tell_what_vllms_own_do_not() -> None:
    ready = AdapterReport(model="a@1", digest="", state=AdapterState.READY, seconds=1.25)
    failed = AdapterReport(model="b@1", digest="", state=AdapterState.FAILED)
    report = ReplicaReport(
        desired="d",
        starts=3,
        adapters=[ready, failed],
        traffic={"a@1": Traffic(requests=7, errors=1, in_flight=2, seconds=4.5)},
    )
    assert samples(exposition(report)) == {
        ("tunesmith_adapter_ready", "a@1"): 1,
        ("tunesmith_adapter_ready", "b@1"): 0,
        ("tunesmith_adapter_load_seconds", "a@1"): 1.25,
        ("tunesmith_vllm_starts_total", None): 3,
        ("tunesmith_requests_total", "a@1"): 7,
        ("tunesmith_request_errors_total", "a@1"): 1,
        ("tunesmith_requests_in_flight", "a@1"): 2,
        ("tunesmith_request_seconds_total", "a@1"): 4.5,
    }


def test_before_anything_is_known_there_are_metrics_too() -> None:
    assert samples(exposition(ReplicaReport(desired=""))) == {
        ("tunesmith_vllm_starts_total", None): 0
    }
