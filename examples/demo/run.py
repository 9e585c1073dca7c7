"""The demonstration: one finetune.yaml in, a served adapter out. Run by `make demo`."""

from __future__ import annotations

import json
import textwrap
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from examples.demo import chain
from examples.demo.kubectl import Kubectl, conditions

NAMESPACE = "demo"
QUESTIONS = 4
#: Longest time from `kubectl apply` to a served adapter on two CPU cores.
FOLLOW_SECONDS = 1500

started = time.monotonic()


def say(text: str) -> None:
    elapsed = int(time.monotonic() - started)
    print(f"[{elapsed // 60:02d}:{elapsed % 60:02d}] {text}", flush=True)


def headline(text: str) -> None:
    print(f"\n\033[1m==> {text}\033[0m", flush=True)


def main() -> None:
    headline("Model and data from this machine")
    with TemporaryDirectory() as work:
        model, dataset = chain.make_inputs(Path(work))
        kubectl = start_over()
        say("copying both into a PersistentVolumeClaim")
        chain.fill_claims(kubectl, model, dataset)

    headline("kubectl apply -f examples/demo/finetune.yaml -f examples/demo/serve.yaml")
    kubectl.apply(str(chain.HERE / "finetune.yaml"))
    kubectl.apply(str(chain.HERE / "serve.yaml"))
    chain.follow(kubectl, say, FOLLOW_SECONDS)

    headline("What the cluster says")
    print(kubectl.run("get", "finetunejobs,evalruns,adapterdeployments"))
    job = kubectl.get("finetunejob", chain.JOB)
    run = kubectl.get("evalrun", job["status"]["evaluation"]["name"])
    say(conditions(job)["Preflight"]["message"])
    say(conditions(run)["Succeeded"]["message"])

    headline("Held-out questions to the served endpoint")
    with kubectl.port_forward(f"service/{chain.DEPLOYMENT}-vllm", 80) as address:
        say(f"models: {', '.join(chain.models(address))}")
        compare(kubectl, address)
    goodbye()


def start_over() -> Kubectl:
    """A demonstration that ran before leaves nothing that this one could take for its own."""
    kubectl = Kubectl(NAMESPACE)
    if kubectl.find("namespace", NAMESPACE):
        say("removing the previous demonstration")
        kubectl.run("delete", "namespace", NAMESPACE, "--wait", timeout=300)
    return chain.create_namespace(NAMESPACE)


def compare(kubectl: Kubectl, address: str) -> None:
    """The same questions to base and adapter, side by side."""
    right = {chain.MODEL_NAME: 0, chain.JOB: 0}
    for question in chain.held_out(kubectl, QUESTIONS):
        show("asked", question.messages[-1]["content"])
        show("expected", question.expected)
        for name in right:
            answer = chain.ask(address, name, question)
            right[name] += same_record(answer, question.expected)
            show(name, answer)
        print()
    for name, count in right.items():
        say(f"{name}: {count} of {QUESTIONS} records exactly right")


def show(label: str, text: str) -> None:
    body = textwrap.shorten(" ".join(text.split()), 300)
    print(textwrap.fill(body, 100, initial_indent=f"{label:>22}: ", subsequent_indent=" " * 24))


def same_record(answer: str, expected: str) -> bool:
    try:
        return bool(json.loads(answer) == json.loads(expected))
    except ValueError:
        return False


def goodbye() -> None:
    headline("The cluster stays up")
    print(
        textwrap.dedent(f"""\
        export KUBECONFIG=$PWD/build/kubeconfig PATH=$PWD/build/bin:$PATH
        kubectl -n {NAMESPACE} get finetunejobs,evalruns,adapterdeployments
        kubectl -n {NAMESPACE} describe finetunejob {chain.JOB}
        kubectl explain finetunejob.spec
        make cluster-down        # takes it down and leaves nothing behind""")
    )


if __name__ == "__main__":
    main()
