"""The chart's option for Argo CD, and the examples: what Argo CD itself reads of them."""

from __future__ import annotations

from pathlib import Path
from subprocess import CalledProcessError

import pytest
import yaml
from tunesmith.api.adapterdeployment import AdapterDeploymentSpec
from tunesmith.api.crd import DEFINITIONS
from tunesmith.api.finetunejob import FineTuneJobSpec
from tunesmith.api.objects import Kind

from examples.demo.chain import ROOT
from examples.demo.kubectl import Object
from tests.gitops.argocd import CHECKS, reads, rendered

GITOPS = ROOT / "examples" / "gitops"
TEAM = GITOPS / "teams" / "support"
WAVE = "argocd.argoproj.io/sync-wave"


def documents(*paths: Path) -> list[Object]:
    return [each for path in paths for each in yaml.safe_load_all(path.read_text())]


def named(objects: list[Object], name: str) -> list[Object]:
    return [each for each in objects if each["metadata"]["name"] == name]


def test_without_the_option_nothing_is_written_into_argo_cds_namespace() -> None:
    objects = rendered()
    assert objects
    assert not [each for each in objects if each["metadata"].get("namespace") == "argocd"]


def test_with_it_there_is_a_check_for_each_kind_in_the_namespace_of_argo_cd() -> None:
    plain = rendered()
    objects = rendered(argocd__healthChecks="true", argocd__namespace="gitops")
    (checks,) = named(objects, CHECKS)
    assert checks["metadata"]["namespace"] == "gitops"
    keys = {f"resource.customizations.health.tunesmith.dev_{kind}" for kind in Kind}
    assert set(checks["data"]) == keys
    assert [each for each in objects if each != checks] == plain


def test_neither_helm_nor_argo_cd_takes_a_crd_and_all_its_objects_away() -> None:
    crds = [each for each in rendered() if each["kind"] == "CustomResourceDefinition"]
    assert len(crds) == len(DEFINITIONS)
    for each in crds:
        annotations = each["metadata"]["annotations"]
        assert annotations["helm.sh/resource-policy"] == "keep"
        assert annotations["argocd.argoproj.io/sync-options"] == "Prune=false,Delete=false"


@pytest.mark.parametrize("file", ["application.yaml", "applicationset.yaml"])
def test_argo_cd_reads_every_field_of_the_examples(file: str) -> None:
    (manifest,) = documents(GITOPS / file)
    reads(manifest)
    manifest["spec"]["none-such"] = True
    with pytest.raises(CalledProcessError):
        reads(manifest)


def test_both_examples_sync_in_the_same_way() -> None:
    (one,), (every,) = (
        documents(GITOPS / file) for file in ("application.yaml", "applicationset.yaml")
    )
    same = ("syncPolicy", "ignoreDifferences")
    assert {each: one["spec"][each] for each in same} == {
        each: every["spec"]["template"]["spec"][each] for each in same
    }
    assert "ServerSideApply=true" in one["spec"]["syncPolicy"]["syncOptions"]


def test_claims_come_before_the_job_and_the_job_before_what_serves_it() -> None:
    manifests = documents(*sorted(TEAM.glob("*.yaml")))
    waves = {each["kind"]: int(each["metadata"]["annotations"][WAVE]) for each in manifests}
    in_order = sorted(waves, key=waves.__getitem__)
    assert in_order == ["PersistentVolumeClaim", "FineTuneJob", "AdapterDeployment"]


def test_the_job_of_the_example_is_one_that_its_deployment_serves() -> None:
    (job,), (deployment,) = (documents(TEAM / file) for file in ("finetune.yaml", "serving.yaml"))
    trains = FineTuneJobSpec.model_validate(job["spec"])
    serves = AdapterDeploymentSpec.model_validate(deployment["spec"])
    assert serves.adapters.selector is not None
    assert serves.adapters.selector.match_labels.items() <= job["metadata"]["labels"].items()
    assert serves.base_model.uri == trains.base_model.uri
