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


def starting(init: dict[str, given.Raw], *, waiting: given.Raw) -> given.Raw:
    """A pod whose first containers are in these states; each has an image of its own name."""
    pod = given.pod(phase="Pending", waiting=waiting)
    pod["spec"]["initContainers"] = [{"name": each, "image": f"{each}:1"} for each in init]
    pod["status"]["initContainerStatuses"] = [
        {"name": name, "state": state} for name, state in init.items()
    ]
    return pod


RUNNING: given.Raw = {"running": {}}
NO_IMAGE: given.Raw = {"waiting": {"reason": "ImagePullBackOff"}}
WAITING = {"reason": "PodInitializing"}


@pytest.mark.parametrize(
    ("pod", "reason", "words"),
    [
        (
            starting({"proxy": RUNNING, "sidecar": NO_IMAGE}, waiting=WAITING),
            "ImageNotPullable",
            "The image sidecar:1 cannot be pulled",
        ),
        (
            starting(
                {
                    "proxy": {
                        "waiting": {
                            "reason": "RunContainerError",
                            "message": 'exec: "nginx": not found',
                        }
                    },
                    "sidecar": {"waiting": WAITING},
                },
                waiting=WAITING,
            ),
            "ContainerNotCreatable",
            'exec: "nginx": not found',
        ),
        (
            starting({"sidecar": {"waiting": {"reason": "CrashLoopBackOff"}}}, waiting=WAITING),
            "Crashing",
            "kubectl logs",
        ),
        (
            starting({"sidecar": RUNNING}, waiting={"reason": "ErrImagePull"}),
            "ImageNotPullable",
            "The image trainer:1 cannot be pulled",
        ),
    ],
    ids=["image of the sidecar", "proxy cannot run", "sidecar crashes", "only the main one"],
)
def test_a_fault_of_a_container_that_starts_first_is_named_as_well(
    pod: given.Raw, reason: str, words: str
) -> None:
    found = trouble(pod)
    assert found is not None
    assert found.reason == reason
    assert words in found.message


@pytest.mark.parametrize(
    "pod",
    [
        given.pod(),
        starting({"proxy": RUNNING, "sidecar": RUNNING}, waiting=WAITING),
        starting({"proxy": {"waiting": WAITING}}, waiting=WAITING),
        given.pod(phase="Pending", waiting={"reason": "ContainerCreating"}),
        given.pod(phase="Pending", unschedulable=""),
    ],
)
def test_a_pod_on_its_way_is_in_no_trouble(pod: given.Raw) -> None:
    assert trouble(pod) is None
