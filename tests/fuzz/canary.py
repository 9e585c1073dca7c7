"""A healthy tenant beside the poison: a FineTuneJob every few seconds, which must get its Job."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from examples.demo.kubectl import Object
from tests.fuzz.api import GROUP_PATH, Api
from tests.unit.operator import given

SIMULATION = "simulation.tunesmith.dev"
PAUSE_SECONDS = 4.0
LOOK_SECONDS = 0.2
LONGEST_SECONDS = 120.0


@dataclass
class Canary:
    """Applies jobs until it is stopped; ``delays`` are from each apply to its Job."""

    api: Api
    namespace: str
    delays: list[float] = field(default_factory=list)

    async def sing(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self.delays.append(await self._one(f"canary-{len(self.delays)}"))
            await asyncio.sleep(PAUSE_SECONDS)

    async def _one(self, name: str) -> float:
        await self.api.create(self._jobs_path, healthy_job(name, self.namespace))
        began = time.monotonic()
        path = f"/apis/batch/v1/namespaces/{self.namespace}/jobs"
        chosen = f"tunesmith.dev/finetunejob={name}"
        while not await self.api.items(path, labelSelector=chosen):
            if time.monotonic() - began > LONGEST_SECONDS:
                break
            await asyncio.sleep(LOOK_SECONDS)
        return time.monotonic() - began

    async def untrained(self, seconds: float) -> list[str]:
        """Those that have no adapter after that time, although nothing is wrong with them."""
        deadline = time.monotonic() + seconds
        while True:
            left = [
                each["metadata"]["name"]
                for each in await self.api.items(self._jobs_path)
                if "artifact" not in each.get("status", {})
            ]
            if not left or time.monotonic() > deadline:
                return left
            await asyncio.sleep(1)

    @property
    def _jobs_path(self) -> str:
        return f"{GROUP_PATH}/namespaces/{self.namespace}/finetunejobs"


def healthy_job(name: str, namespace: str) -> Object:
    """On simulated nodes: one last word for the pods of all stages."""
    word = given.outcome().model_copy(
        update={"training": given.trained().training, "evaluation": given.measured()}
    )
    annotations = {f"{SIMULATION}/message": word.to_line()}
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "baseModel": {"uri": "pvc://library/llama"},
            "dataset": {"uri": "pvc://library/rows.jsonl"},
            "output": {"uri": "pvc://library"},
            "evaluation": {"preflight": "Skip"},
            "podTemplate": {
                "nodeSelector": {"type": "kwok"},
                "tolerations": [{"key": "tunesmith.dev/simulated", "operator": "Exists"}],
                "annotations": annotations,
            },
        },
    }
