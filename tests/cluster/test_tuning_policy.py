"""What TuningPolicies refuse, and with which words: the real API server says it.

Most is asked with a dry run: admission is the same, and nothing is left behind.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from examples.demo.chain import ROOT, create_namespace
from examples.demo.kubectl import Kubectl, Object
from tests.cluster.policies import API, only, policy, refusal
from tests.cluster.policy_cases import (
    ALLOWED,
    DIGEST,
    EVERYBODY,
    REFUSED,
    SALES,
    SUPPORT,
    job,
    run,
    served,
)
from tests.cluster.test_stages import set_suspend, until


@dataclass(frozen=True)
class Tenants:
    """Two teams with a policy each and one for both, and somebody without any."""

    support: Kubectl
    sales: Kubectl
    elsewhere: Kubectl


@pytest.fixture(scope="module")
def tenants() -> Iterator[Tenants]:
    suffix = uuid.uuid4().hex[:6]
    names = ("support", "sales", "elsewhere")
    found = Tenants(*(create_namespace(f"{name}-{suffix}") for name in names))
    for each in (found.support, found.sales):
        each.run("label", "namespace", each.namespace, f"tenant={suffix}")
    both = {"matchLabels": {"tenant": suffix}}
    with ExitStack() as stack:
        for team, allowed in ((found.support, SUPPORT), (found.sales, SALES)):
            where = only(team.namespace)
            stack.enter_context(policy(team.namespace, namespaces=where, allowed=allowed))
        stack.enter_context(policy(f"both-{suffix}", namespaces=both, allowed=EVERYBODY))
        until(lambda: refusal(found.support, job(baseModel={"uri": "hf://other/model"})))
        until(lambda: refusal(found.sales, job(baseModel={"uri": "hf://other/model"})))
        until(lambda: refusal(found.support, job(method="DoRA")))
        yield found
    for each in (found.support, found.sales, found.elsewhere):
        each.run("delete", "namespace", each.namespace, "--wait=false")


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_is_not_allowed_is_refused_with_one_sentence(tenants: Tenants, case: str) -> None:
    wanted, sentence = REFUSED[case]
    said = refusal(tenants.support, wanted)
    assert said is not None
    assert "denied request: TuningPolicy " in said
    assert sentence in said
    assert refusal(tenants.elsewhere, wanted) is None, "no policy holds there"


@pytest.mark.parametrize("number", range(len(ALLOWED)))
def test_what_is_allowed_is_let_in(tenants: Tenants, number: int) -> None:
    assert refusal(tenants.support, ALLOWED[number]) is None


def test_each_tenant_has_the_limits_of_its_own_policy(tenants: Tenants) -> None:
    mistral = job(baseModel={"uri": "hf://mistralai/Mistral-7B"}, resources={"gpus": 0})
    assert refusal(tenants.sales, mistral) is None
    assert "hf://mistralai/Mistral-7B" in (refusal(tenants.support, mistral) or "")
    assert "its base models are: hf://mistralai/*" in (refusal(tenants.sales, job()) or "")
    judged = run(baseModel={"uri": "hf://mistralai/Mistral-7B"})
    assert "allows a pod at most 0 GPUs" in (refusal(tenants.sales, judged) or "")


@pytest.mark.parametrize(("method", "refused_by"), [("QLoRA", "sales-"), ("DoRA", "both-")])
def test_all_policies_that_hold_must_allow_it(
    tenants: Tenants, method: str, refused_by: str
) -> None:
    wanted = job(
        baseModel={"uri": "hf://mistralai/Mistral-7B"}, resources={"gpus": 0}, method=method
    )
    said = refusal(tenants.sales, wanted) or ""
    assert f"TuningPolicy {refused_by}" in said
    assert f"does not allow spec.method {method}" in said


def test_auto_needs_both_methods_of_which_it_chooses(tenants: Tenants) -> None:
    wanted = job(baseModel={"uri": "hf://mistralai/a"}, resources={"gpus": 0}, method="Auto")
    assert "does not allow spec.method Auto" in (refusal(tenants.sales, wanted) or "")


def test_the_longest_lists_are_compared_within_what_the_api_server_spends(kubectl: Kubectl) -> None:
    """A thousand adapters and all patterns that a policy may have."""
    patterns = [f"pvc://claim-{number}/{'x' * 100}/*" for number in range(31)]
    allowed: Object = {"adapters": [*patterns, "pvc://adapters/*"]}
    with policy(kubectl.namespace, namespaces=only(kubectl.namespace), allowed=allowed):
        said = until(lambda: refusal(kubectl, a_thousand_adapters("others"))) or ""
        assert "does not allow spec.adapters.named[adapter-0].uri pvc://others/" in said
        assert refusal(kubectl, a_thousand_adapters("adapters")) is None


def a_thousand_adapters(claim: str) -> Object:
    named = [
        {
            "name": f"adapter-{number}",
            "uri": f"pvc://{claim}/{'y' * 100}/{number}",
            "digest": f"sha256:{number:064x}",
        }
        for number in range(1000)
    ]
    return served(adapters={"named": named})


def test_the_example_is_let_in() -> None:
    example = str(ROOT / "examples" / "tuning-policy.yaml")
    Kubectl("default").run("apply", "--dry-run=server", "-f", example)


@pytest.mark.parametrize("kind", ["finetunejobs", "evalruns", "adapterdeployments"])
def test_the_api_server_finds_no_mistake_in_what_the_chart_gave_it(kind: str) -> None:
    checked = until(lambda: _type_checking(f"tunesmith-{kind}"))
    assert checked == {"known": True}


def _type_checking(name: str) -> Object | None:
    status = Kubectl("default").get("validatingadmissionpolicy", name).get("status", {})
    if "observedGeneration" not in status:
        return None
    return {"known": True, **status.get("typeChecking", {})}


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"allowed": {"baseModels": ["hf://*/a"]}}, "one '*' at the end"),
        ({"allowed": {"maxHours": 0}}, "allowed.maxHours must be between"),
        ({"allowed": {"methods": ["Lora"]}}, 'Unsupported value: "Lora"'),
        ({"defaults": {"output": {"uri": "hf://a/b"}}}, "output.uri must be pvc://"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(spec: Object, sentence: str) -> None:
    wanted = {"apiVersion": API, "kind": "TuningPolicy", "metadata": {"name": "a"}, "spec": spec}
    assert sentence in (refusal(Kubectl("default"), wanted) or "")


def test_what_was_there_before_a_stricter_policy_stays(kubectl: Kubectl) -> None:
    """It may be suspended, resumed, labelled, scaled and deleted; only what is new is judged."""
    kubectl.apply(job(suspend=True))
    kubectl.apply(served())
    where = only(kubectl.namespace)
    nothing: Object = {"baseModels": [], "adapters": [], "methods": [], "maxGpus": 0}
    with policy(kubectl.namespace, namespaces=where, allowed=nothing):
        until(lambda: refusal(kubectl, job() | {"metadata": {"name": "later"}}))
        kubectl.run("label", "finetunejob", "asked", "team=support")
        set_suspend(kubectl, "finetunejob", "asked", False)
        set_suspend(kubectl, "finetunejob", "asked", True)
        finalizers = {"metadata": {"finalizers": ["example.com/held"]}}
        kubectl.run("patch", "finetunejob", "asked", "--type=merge", "-p", json.dumps(finalizers))
        kubectl.run("delete", "finetunejob", "asked", "--wait=false")
        released: Object = {"metadata": {"finalizers": None}}
        kubectl.run("patch", "finetunejob", "asked", "--type=merge", "-p", json.dumps(released))
        until(lambda: kubectl.find("finetunejob", "asked") is None)

        kubectl.run("scale", "adapterdeployment", "asked", "--replicas=1")
        kubectl.apply(served(baseReplicas=1, replicas=0))
        another = {"name": "two", "uri": "pvc://adapters/team/two", "digest": DIGEST}
        both = {"named": [*served()["spec"]["adapters"]["named"], another]}
        assert "spec.adapters.named[two].uri" in (refusal(kubectl, served(adapters=both)) or "")
        more = refusal(kubectl, served(resources={"gpus": 2})) or ""
        assert "at most 0 GPUs; spec.resources.gpus is 2" in more
        kubectl.apply(served(adapters={"named": []}))
        kubectl.run("delete", "adapterdeployment", "asked", "--wait=false")
