"""What keeps a pod from running: every fault is named with a remedy."""

from __future__ import annotations

import pytest
from tunesmith.kube.pods import trouble

from tests.unit.operator import given


@pytest.mark.parametrize(
    ("pod", "reason", "words"),
    [
        (
            given.pod(phase="Pending", waiting={"reason": "ImagePullBackOff"}),
            "ImageNotPullable",
            "trainer:1",
        ),
        (
            given.pod(
                phase="Pending",
                waiting={
                    "reason": "CreateContainerConfigError",
                    "message": 'secret "hub" not found',
                },
            ),
            "SecretNotFound",
            "The Secret hub does not exist in namespace team",
        ),
        (
            given.pod(
                phase="Pending",
                waiting={
                    "reason": "CreateContainerConfigError",
                    "message": "couldn't find key HF_TOKEN in Secret team/hub",
                },
            ),
            "SecretKeyNotFound",
            "has no key HF_TOKEN",
        ),
        (
            given.pod(
                phase="Pending",
                unschedulable='0/1 nodes are available: persistentvolumeclaim "m" not found.',
            ),
            "ClaimNotFound",
            "The PersistentVolumeClaim m does not exist in namespace team",
        ),
        (
            given.pod(
                phase="Pending",
                unschedulable="0/1 nodes are available: pod has unbound immediate "
                "PersistentVolumeClaims.",
            ),
            "ClaimNotBound",
            "has no volume yet",
        ),
        (
            given.pod(
                phase="Pending", unschedulable="0/3 nodes are available: 3 Insufficient gpu."
            ),
            "Unschedulable",
            "3 Insufficient gpu",
        ),
        (
            given.pod(phase="Running", waiting={"reason": "CrashLoopBackOff"}),
            "Crashing",
            "kubectl logs",
        ),
    ],
)
def test_each_fault_is_named_with_a_remedy(pod: given.Raw, reason: str, words: str) -> None:
    found = trouble(pod)
    assert found is not None
    assert found.reason == reason
    assert words in found.message


@pytest.mark.parametrize(
    "pod",
    [
        given.pod(),
        given.pod(phase="Pending", waiting={"reason": "ContainerCreating"}),
        given.pod(phase="Pending", unschedulable=""),
    ],
)
def test_a_pod_on_its_way_is_in_no_trouble(pod: given.Raw) -> None:
    assert trouble(pod) is None
