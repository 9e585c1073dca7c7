"""Serving on one GPU with what the operator generates: its flags, its modules, its sidecar.

Two halves. `plan` runs anywhere: it writes the files that the operator would put into the
ConfigMaps. `run` runs on the machine with the GPU, where vLLM is on PYTHONPATH: it makes a
randomly initialised Llama-3.1-8B and adapters of rank 16 on all seven projections, starts sidecar
and vLLM as the pod does, compares base, one adapter and sixteen in closed loops of 512 tokens in
and 128 out, and loads adapters while requests run.

    python -m tests.bench.gpu_serving plan FOLDER
    python -m tests.bench.gpu_serving run FOLDER base sixteen one
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.bench.closed_loop import Shape, closed_loop
from tests.bench.results import Figure, tell

CLAIMS = Path("/mnt/claims")
CONFIGURATION = Path("/etc/tunesmith/serving")
RUN = Path("/run/tunesmith")
MODEL = CLAIMS / "models" / "llama-8b"
ADDRESS = "http://127.0.0.1:8001"
SIDECAR = "http://127.0.0.1:9401"
BASE = "llama-8b"

SHAPES = [Shape(8, 1), Shape(128, 32), Shape(384, 128)]
#: Llama-3.1-8B.
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
}
#: Servers that are compared: name → adapters that are there when it starts, slots, arguments.
SERVERS: dict[str, tuple[int, int | None, dict[str, str]]] = {
    "base": (0, None, {}),
    "one": (1, 1, {}),
    "sixteen": (16, 16, {}),
    # CUDA graphs for each number of adapters in a batch, instead of one for all.
    "sixteen-specialized": (16, 16, {"specialize-active-lora": "true"}),
}


# --- what the operator generates -----------------------------------------------------------------


def plan(folder: Path) -> None:
    """Write vLLM's options and the desired state of every server, by the operator's own code."""
    from tunesmith.adapterdeployment.configuration import (
        desired_state,
        options_text,
        server_options,
        with_adapters,
    )
    from tunesmith.adapterdeployment.limits import limits
    from tunesmith.adapterdeployment.rollout import Version
    from tunesmith.adapterdeployment.selection import Candidate
    from tunesmith.api.adapterdeployment import AdapterDeployment
    from tunesmith.api.serving_status import VersionState

    for name, (count, slots, arguments) in SERVERS.items():
        deployment = AdapterDeployment.from_object(
            {
                "metadata": {"name": "bench", "namespace": "bench", "uid": "bench"},
                "spec": {
                    "baseModel": {"uri": "pvc://models/llama-8b"},
                    "maxModelLength": 2048,
                    "resources": {"gpus": 1, "memory": "64Gi"},
                    "server": {
                        **({"maxLoras": slots} if slots else {}),
                        "arguments": {
                            "max-num-seqs": "128",
                            "max-num-batched-tokens": "8192",
                            "enable-prefix-caching": "false",
                            **arguments,
                        },
                    },
                },
            }
        )
        versions = [
            Version(
                Candidate(
                    f"a{number}", f"pvc://adapters/a{number}", f"sha256:{number:064x}", rank=16
                ),
                VersionState.PROMOTED,
                100,
                "",
            )
            for number in range(max(count, 1))
        ]
        chosen = limits(deployment, [each.candidate for each in versions], None)
        options = server_options(deployment)
        if count:
            options = with_adapters(options, deployment, chosen)
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        (target / "vllm.yaml").write_text(options_text(options))
        state = desired_state(deployment, versions if count else [], chosen, None)
        (target / "desired.json").write_text(
            state.model_dump_json(by_alias=True, exclude_none=True)
        )


# --- on the machine with the GPU -----------------------------------------------------------------


def make_model(tokenizer: Path) -> None:
    """Random weights of the right shapes; numbers like those of a trained model's start."""
    import torch
    from safetensors.torch import save_file

    if (MODEL / "config.json").exists():
        return
    MODEL.mkdir(parents=True)
    for each in tokenizer.iterdir():
        shutil.copy(each, MODEL)
    torch.manual_seed(0)

    def weight(*shape: int) -> Any:
        made = torch.empty(*shape, dtype=torch.bfloat16, device="cuda").normal_(std=0.02)
        return made.cpu()

    def ones(size: int) -> Any:
        return torch.ones(size, dtype=torch.bfloat16)

    hidden, inner, values = 4096, 14336, 1024
    shard: dict[str, Any] = {
        "model.embed_tokens.weight": weight(128256, hidden),
        "lm_head.weight": weight(128256, hidden),
        "model.norm.weight": ones(hidden),
    }
    save_file(shard, MODEL / "model-ends.safetensors")
    for first in range(0, 32, 8):
        shard = {}
        for layer in range(first, first + 8):
            prefix = f"model.layers.{layer}"
            for name, shape in {
                "self_attn.q_proj": (hidden, hidden),
                "self_attn.k_proj": (values, hidden),
                "self_attn.v_proj": (values, hidden),
                "self_attn.o_proj": (hidden, hidden),
                "mlp.gate_proj": (inner, hidden),
                "mlp.up_proj": (inner, hidden),
                "mlp.down_proj": (hidden, inner),
            }.items():
                shard[f"{prefix}.{name}.weight"] = weight(*shape)
            shard[f"{prefix}.input_layernorm.weight"] = ones(hidden)
            shard[f"{prefix}.post_attention_layernorm.weight"] = ones(hidden)
        save_file(shard, MODEL / f"model-layers-{first}.safetensors")
    (MODEL / "config.json").write_text(json.dumps(CONFIG))


def make_adapters(count: int) -> dict[str, str]:
    """Adapters of rank 16 on all seven projections in bfloat16; name → digest."""
    import torch
    from safetensors.torch import save_file
    from tunesmith.api.digests import adapter_digest

    hidden, inner, values = 4096, 14336, 1024
    shapes = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (values, hidden),
        "self_attn.v_proj": (values, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    digests = {}
    for number in range(count):
        folder = CLAIMS / "adapters" / f"a{number}"
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(number)
        tensors = {}
        for layer in range(32):
            for name, (outputs, inputs) in shapes.items():
                prefix = f"base_model.model.model.layers.{layer}.{name}"
                down = torch.randn(16, inputs, device="cuda") / inputs**0.5
                up = torch.randn(outputs, 16, device="cuda") * 0.02
                tensors[f"{prefix}.lora_A.weight"] = down.bfloat16().cpu()
                tensors[f"{prefix}.lora_B.weight"] = up.bfloat16().cpu()
        save_file(tensors, folder / "adapter_model.safetensors")
        configuration = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": "llama-8b",
            "r": 16,
            "lora_alpha": 32,
            "target_modules": [each.rsplit(".", 1)[-1] for each in shapes],
            "bias": "none",
        }
        (folder / "adapter_config.json").write_text(json.dumps(configuration))
        digests[f"a{number}"] = adapter_digest(folder)
    return digests


class ControlDoor(BaseHTTPRequestHandler):
    """Stands in for the proxy's control door: vLLM is asked directly here, to compare its speed."""

    digest = ""

    def do_GET(self) -> None:
        self._answer({"digest": ControlDoor.digest, "traffic": {}})

    def do_PUT(self) -> None:
        table = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        ControlDoor.digest = table["digest"]
        self._answer({})

    def _answer(self, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


class Server:
    """The sidecar and vLLM, started as the pod starts them."""

    def __init__(self, plan_folder: Path, digests: dict[str, str]) -> None:
        shutil.rmtree(RUN, ignore_errors=True)
        for folder in (RUN, CONFIGURATION):
            folder.mkdir(parents=True, exist_ok=True)
        self.state = json.loads((plan_folder / "desired.json").read_text())
        self.digests = digests
        for each in self.state["adapters"]:
            each["digest"] = digests[each["model"].split("@")[0]]
        shutil.copy(plan_folder / "vllm.yaml", CONFIGURATION / "vllm.yaml")
        self.write()
        log = Path(os.environ.get("OUT", "/tmp")) / f"{plan_folder.name}.log"
        self.log = log.open("w")
        self.processes = [self._start([sys.executable, "-m", "tunesmith.sidecar"])]
        began = time.monotonic()
        while not (RUN / "vllm.yaml").exists():
            time.sleep(0.1)
        self.examined_seconds = time.monotonic() - began
        command = (
            f"echo start >> {RUN}/starts && exec {sys.executable} "
            f"-m vllm.entrypoints.openai.api_server --config {RUN}/vllm.yaml"
        )
        self.processes.append(self._start(["sh", "-c", command]))
        self.start_seconds = self._wait()

    def write(self) -> None:
        """The desired state, as the kubelet would show it."""
        staging = CONFIGURATION / ".desired"
        staging.write_text(json.dumps(self.state))
        staging.rename(CONFIGURATION / "desired.json")

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True
        )

    def _wait(self) -> float:
        began = time.monotonic()
        while time.monotonic() - began < 280:
            report = self.report()
            ready = [each for each in report.get("adapters", []) if each["state"] == "Ready"]
            if report.get("serving") and len(ready) == len(self.state["adapters"]):
                return time.monotonic() - began
            if self.processes[-1].poll() is not None:
                break
            time.sleep(0.2)
        raise SystemExit(f"not up: {json.dumps(self.report())[:3000]}")

    def report(self) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"{SIDECAR}/report", timeout=5) as response:
                return dict(json.load(response))
        except OSError:
            return {}

    def add(self, name: str) -> dict[str, Any]:
        """Desire one more adapter; what the sidecar says about it once it is ready."""
        digest = self.digests[name]
        model = f"{name}@{digest.removeprefix('sha256:')[:12]}"
        path = str(CLAIMS / "adapters" / name)
        self.state["adapters"].append({"model": model, "path": path, "digest": digest})
        self.write()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for each in self.report().get("adapters", []):
                if each["model"] == model and each["state"] == "Ready":
                    return dict(each)
            time.sleep(0.02)
        raise SystemExit(f"{name} did not become ready: {self.report()}")

    def models(self) -> list[str]:
        return [each["model"] for each in self.state["adapters"]]

    def stop(self) -> None:
        for process in self.processes:
            os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        self.log.close()


async def rows(label: str, models: list[str]) -> list[Figure]:
    """Tokens a second at each concurrency."""
    await closed_loop(ADDRESS, models, Shape(48, 16, 512, 16), seed=99)
    found = []
    for shape in SHAPES:
        outcome = await closed_loop(ADDRESS, models, shape, seed=shape.at_once)
        if outcome.failures:
            raise SystemExit(f"{label}: {outcome.failures[:3]}")
        name = f"{label}, {shape.at_once} at once"
        found.append(Figure(name, outcome.tokens_per_second, "tok/s"))
        print(f"{name}: {outcome.tokens_per_second:.0f} tok/s", flush=True)
    return found


async def hot_loads(server: Server, names: list[str]) -> list[Figure]:
    """Adapters that join while 32 requests are always under way."""
    loop = asyncio.create_task(closed_loop(ADDRESS, server.models()[:8], Shape(400, 32), seed=7))
    await asyncio.sleep(3)
    told = []
    for name in names:
        told.append(await asyncio.to_thread(server.add, name))
        await asyncio.sleep(1)
    outcome = await loop
    loading = sorted(each["loadSeconds"] for each in told)
    whole = sorted(each["seconds"] for each in told)
    return [
        Figure("hot load under load: vLLM's loading, median", loading[len(told) // 2], "s"),
        Figure("hot load under load: pre-flight to proof, median", whole[len(told) // 2], "s"),
        Figure("hot load under load: requests", len(outcome.latencies), ""),
        Figure("hot load under load: failed requests", len(outcome.failures), "", "== 0"),
        Figure(
            "start to ready over hot load",
            server.start_seconds / loading[len(told) // 2],
            "x",
            ">= 100",
        ),
    ]


def run(plan_folder: Path, servers: list[str], tokenizer: Path) -> list[Figure]:
    began = time.monotonic()
    door = ThreadingHTTPServer(("127.0.0.1", 8002), ControlDoor)
    threading.Thread(target=door.serve_forever, daemon=True).start()
    make_model(tokenizer)
    digests = make_adapters(24)
    print(f"model and adapters made in {time.monotonic() - began:.0f} s", flush=True)
    figures = []
    for name in servers:
        server = Server(plan_folder / name, digests)
        try:
            figures.append(Figure(f"{name}: start to ready", server.start_seconds, "s"))
            print(
                f"{name}: examined in {server.examined_seconds:.1f} s, ready after "
                f"{server.start_seconds:.1f} s",
                flush=True,
            )
            figures += asyncio.run(rows(f"{name}: base", [BASE]))
            if models := server.models():
                figures += asyncio.run(rows(f"{name}: one adapter", models[:1]))
            if len(models) > 1:
                figures += asyncio.run(rows(f"{name}: {len(models)} adapters", models))
                joining = [f"a{number}" for number in range(len(models), 24)]
                figures += asyncio.run(hot_loads(server, joining))
        finally:
            server.stop()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["plan", "run"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("servers", nargs="*", default=list(SERVERS))
    parser.add_argument("--tokenizer", type=Path, default=Path("/tmp/smoke/tokenizer"))
    arguments = parser.parse_args()
    if arguments.what == "plan":
        plan(arguments.folder)
        return
    figures = run(arguments.folder, arguments.servers, arguments.tokenizer)
    out = Path(os.environ.get("OUT", "build/bench"))
    tell(f"serving-gpu-{'-'.join(arguments.servers)}", figures, out)


if __name__ == "__main__":
    main()
