"""kubectl tunesmith against the real API server, found by kubectl as its plugin.

Real Job controller and kubelet; the trainer is played (``played_trainer``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from examples.demo.chain import ROOT
from examples.demo.kubectl import Kubectl, Object
from tests.cluster.policies import only, policy, refusal
from tests.cluster.test_faults import copy_in
from tests.cluster.test_stages import (
    finetunejob,
    finish,
    namespace_of_players,
    own_name,
    training_jobs,
    until,
    until_state,
)

PLUGINS = {
    "kubectl-tunesmith": "from tunesmith.commandline.main import run; run()",
    "kubectl_complete-tunesmith": "from tunesmith.commandline.completion import main; main()",
}
REVIEWED = {"uri": "pvc://library/any.jsonl", "review": {"required": True}}


@dataclass(frozen=True)
class Told:
    """What a command printed, and how it ended."""

    code: int
    output: str
    errors: str

    @property
    def text(self) -> str:
        """In one line, as where lines break is for the eye."""
        return " ".join(self.output.split())


@dataclass(frozen=True)
class Plugin:
    """kubectl in one namespace, with the plugin on the path as the package installs it."""

    kubectl: Kubectl
    folder: Path

    def __call__(self, word: str, *words: str, stdin: str = "") -> Told:
        return self.run("tunesmith", word, "-n", self.kubectl.namespace, *words, stdin=stdin)

    def run(self, *words: str, stdin: str = "") -> Told:
        path = os.pathsep.join((str(self.folder), os.environ["PATH"]))
        done = subprocess.run(
            ["kubectl", *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "operator")},
            cwd=self.folder,
        )
        return Told(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plugin]:
    folder = tmp_path_factory.mktemp("plugins")
    for name, program in PLUGINS.items():
        path = folder / name
        path.write_text(f"#!{sys.executable}\n{program}\n")
        path.chmod(0o755)
    with namespace_of_players("commandline") as kubectl:
        yield Plugin(kubectl, folder)


def init(plugin: Plugin, *flags: str) -> str:
    needed = ("--name", "written", "--base-model", "hf://meta-llama/Llama-3.1-8B-Instruct")
    places = ("--dataset", "pvc://data/t.jsonl", "--output", "pvc://adapters")
    done = plugin.run("tunesmith", "init", "-f", "-", *needed, *places, *flags)
    assert done.code == 0, done.errors
    return done.output


def test_what_init_writes_is_admitted_and_not_created(plugin: Plugin) -> None:
    text = init(plugin, "--serve", "support", "--memory", "64Gi", "--review")
    plugin.kubectl.run("apply", "--dry-run=server", "-f", "-", stdin=text)
    told = plugin("plan", "-f", "-", stdin=text)
    assert told.code == 0, told.output
    assert told.output.count("Admitted by the API server") == 2
    assert "LoRA, micro-batch 4 x accumulation 2" in told.text
    assert plugin.kubectl.list("finetunejobs") == []
    assert plugin.kubectl.list("adapterdeployments") == []


def test_plan_tells_every_sentence_of_a_refusal_and_what_would_fit(plugin: Plugin) -> None:
    (job,) = yaml.safe_load_all(init(plugin, "--gpu-memory", "16Gi", "--method", "LoRA"))
    job["spec"]["lora"] = {"rank": 1000}
    job["spec"]["training"] = {"learningRate": 7}
    told = plugin("plan", "-f", "-", "-o", "json", stdin=json.dumps(job))
    assert told.code == 1
    (found,) = json.loads(told.output)
    refusal = found["admission"]
    assert refusal["verdict"] == "Refused"
    assert any("lora.rank must be between 1 and 512" in each for each in refusal["because"])
    assert any("training.learningRate must be above 0" in each for each in refusal["because"])
    assert "what would fit" in found["memory"]["doesNotFit"]


def test_plan_tells_what_a_policy_does_not_allow(plugin: Plugin) -> None:
    job = finetunejob("planned", baseModel={"uri": "hf://meta-llama/Llama-3.1-8B"})
    team = plugin.kubectl
    allowed: Object = {"baseModels": ["hf://mistralai/*"]}
    with policy(team.namespace, namespaces=only(team.namespace), allowed=allowed):
        until(lambda: refusal(team, job))
        told = plugin("plan", "-f", "-", stdin=json.dumps(job))
    assert told.code == 1
    assert f"Refused: TuningPolicy {team.namespace} does not allow spec.baseModel.uri" in told.text
    assert "hf://meta-llama/Llama-3.1-8B; its base models are: hf://mistralai/*" in told.text


def test_plan_refuses_a_misspelt_field_as_kubectl_apply_does(plugin: Plugin) -> None:
    (job,) = yaml.safe_load_all(init(plugin))
    job["spec"]["metod"] = "LoRA"
    told = plugin("plan", "-f", "-", stdin=json.dumps(job))
    assert told.code == 1
    assert "metod" in told.text


@pytest.fixture(scope="module")
def waiting(plugin: Plugin) -> Object:
    """A job whose data waits for somebody."""
    plugin.kubectl.apply(finetunejob("reviewed", dataset=REVIEWED))
    return until_state(plugin.kubectl, "reviewed", "AwaitingReview")


def test_status_says_what_waits_for_whom(plugin: Plugin, waiting: Object) -> None:
    told = plugin("status", "reviewed")
    assert told.output.startswith("FineTuneJob reviewed: AwaitingReview")
    assert "500 rows: 200 trained on, 300 held out" in told.text
    assert told.text.count("The data waits for somebody's approval") == 1
    assert "FineTuneJob reviewed AwaitingReview" in plugin("status").text
    raw = json.loads(plugin("status", "ftj/reviewed", "-o", "json").output)
    assert raw["status"]["dataset"] == waiting["status"]["dataset"]


def test_logs_are_those_of_the_stage_that_is_done_last(plugin: Plugin, waiting: Object) -> None:
    told = plugin("logs", "reviewed")
    assert "the data is prepared" in told.output
    assert "pod reviewed-prepare-1" in told.errors
    refused = plugin("logs", "reviewed", "--stage", "train")
    assert refused.code == 1
    assert "is AwaitingReview and has no pod of the stage train" in refused.errors


def test_the_page_to_look_at_is_read_by_a_pod_that_is_gone_afterwards(
    plugin: Plugin, waiting: Object
) -> None:
    page = "<html>" + "example " * 100_000 + "</html>"
    uri = waiting["status"]["review"]["page"]
    copy_in(plugin.kubectl, {uri.removeprefix("pvc://adapters/"): page.encode()}, "adapters")
    told = plugin("report", "reviewed", "--page", "review", "-f", "page.html")
    assert told.code == 0, told.errors
    assert (plugin.folder / "page.html").read_text() == page
    readers = plugin.kubectl.list("pods", "app.kubernetes.io/managed-by=kubectl-tunesmith")
    assert [each for each in readers if "deletionTimestamp" not in each["metadata"]] == []


def test_a_page_that_is_not_there_is_a_refusal_and_no_file(plugin: Plugin, waiting: Object) -> None:
    told = plugin("report", "reviewed", "-f", "none.html")
    assert told.code == 1
    assert "comes with the artifact" in told.errors
    assert not (plugin.folder / "none.html").exists()


def test_approve_approves_exactly_this_data_in_ones_own_name(
    plugin: Plugin, waiting: Object
) -> None:
    kubectl, digest = plugin.kubectl, waiting["status"]["dataset"]["digest"]
    assert training_jobs(kubectl, "reviewed") == []
    told = plugin("approve", "reviewed")
    assert told.code == 0, told.errors
    assert f"{own_name(kubectl)} approved the data of reviewed: {digest}" in told.output
    kubectl.wait("finetunejob/reviewed", "Reviewed", 30)
    until(lambda: "reviewed trains" in plugin("logs", "reviewed").output)
    review = kubectl.get("finetunejob", "reviewed")["status"]["review"]
    assert (review["approvedBy"], review["approvedDigest"]) == (own_name(kubectl), digest)

    again = plugin("approve", "reviewed")
    assert again.code == 1
    assert "nothing waits" in again.errors


def test_logs_are_followed_until_the_pod_ends(plugin: Plugin, waiting: Object) -> None:
    name = plugin.kubectl.namespace
    path = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}
    command = [sys.executable, "-m", "tunesmith.commandline", "logs", "-f", "reviewed", "-n", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=path) as followed:
        assert followed.stdout is not None
        assert "reviewed trains" in followed.stdout.readline()
        assert followed.poll() is None
        finish(plugin.kubectl, "reviewed")
        assert followed.wait(60) == 0


def test_the_report_of_a_training_lies_with_its_artifact(plugin: Plugin, waiting: Object) -> None:
    artifact = plugin.kubectl.get("finetunejob", "reviewed")["status"]["artifact"]
    path = artifact["uri"].removeprefix("pvc://adapters/")
    told = plugin("report", "reviewed")
    assert told.code == 1
    assert "No such file" in told.errors
    copy_in(plugin.kubectl, {f"{path}/report.html": b"<html>loss</html>"}, "adapters")
    told = plugin("report", "reviewed")
    assert told.code == 0, told.errors
    assert (plugin.folder / "reviewed-training.html").read_text() == "<html>loss</html>"


def test_what_is_not_there_is_told_with_1_and_an_api_server_that_is_not_with_3(
    plugin: Plugin,
) -> None:
    for words in (("status", "none"), ("compare", "one", "two"), ("chat", "none"), ("logs", "x")):
        told = plugin(*words)
        assert told.code == 1
        assert "there is no" in told.errors
    config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    for each in config["clusters"]:
        each["cluster"]["server"] = "https://127.0.0.1:9"
    nowhere = plugin.folder / "nowhere"
    nowhere.write_text(yaml.safe_dump(config))
    told = plugin.run("tunesmith", "status", "--kubeconfig", str(nowhere))
    assert told.code == 3


def test_kubectl_completes_the_plugins_words_and_the_names_of_jobs(
    plugin: Plugin, waiting: Object
) -> None:
    assert "approve" in plugin.run("__complete", "tunesmith", "a").output
    namespace = ("-n", plugin.kubectl.namespace)
    offered = plugin.run("__complete", "tunesmith", "status", *namespace, "rev")
    assert offered.output.splitlines()[:2] == ["reviewed", ":4"]
