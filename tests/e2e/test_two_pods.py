"""Two pods train one adapter: they meet through their Service and share each step (gloo)."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.demo import chain
from examples.demo.kubectl import Kubectl, Object

NAMESPACE, JOB = "two-pods", "together"
TRAINED_SECONDS = 420
EXAMPLES = 60


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Kubectl]:
    """A namespace with a tiny model and some examples."""
    model, dataset = tmp_path / "model", tmp_path / "rows.jsonl"
    python = chain.ROOT / "build" / "venvs" / "ml" / "bin" / "python"
    tiny_model = chain.ROOT / "tests" / "cluster" / "tiny_model.py"
    subprocess.run([python, tiny_model, model], check=True)
    dataset.write_text("".join(f"{json.dumps(example(number))}\n" for number in range(EXAMPLES)))
    kubectl = chain.create_namespace(NAMESPACE)
    chain.fill_claims(kubectl, model, dataset)
    yield kubectl
    kubectl.run("delete", "namespace", NAMESPACE, "--wait=false")


def example(number: int) -> Object:
    """No two share words, so that none is left out as a duplicate."""
    letters = random.Random(number)
    words = ["".join(letters.choices("abcdefghijklmnop", k=5)) for _ in range(12)]
    texts = (("user", " ".join(words[:8])), ("assistant", " ".join(words[8:])))
    return {"messages": [{"role": role, "content": text} for role, text in texts]}


def finetunejob() -> Object:
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": JOB},
        "spec": {
            "baseModel": {"uri": f"pvc://library/models/{chain.MODEL_NAME}"},
            "dataset": {"uri": "pvc://library/data/rows.jsonl"},
            "training": {"epochs": 2, "maxLength": 128, "batchSize": 8, "microBatchSize": 2},
            "evaluation": {"preflight": "Skip"},
            "output": {"uri": "pvc://adapters"},
            "resources": {"gpus": 0, "cpu": "250m", "memory": "3Gi", "nodes": 2},
        },
    }


def test_two_pods_train_one_adapter(team: Kubectl) -> None:
    team.apply(finetunejob())
    team.wait(f"finetunejob/{JOB}", "Succeeded", TRAINED_SECONDS)
    trained = team.get("job", f"{JOB}-train-1")["status"]
    assert trained["succeeded"] == 2
    status = team.get("finetunejob", JOB)["status"]
    assert status["attempt"] == 1
    folder = f"/adapters/{status['artifact']['uri'].removeprefix('pvc://adapters/')}"
    lineage = json.loads(team.run("exec", "loader", "--", "cat", f"{folder}/lineage.json"))
    assert lineage["run"]["processes"] == 2
