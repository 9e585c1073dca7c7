"""Evaluating an adapter beside its base model on one GPU, with a model of Llama-3.1-8B's shape.

One round takes 7 minutes on an H100. To run it on a machine with PyTorch, transformers and peft
for CUDA, but without lm-eval and without a network:

1. Where there is a network, download wheels for that machine's Python into a folder, in the
   versions of devcluster/ml-packages.txt: `pip download --no-deps --only-binary=:all:
   --python-version 3.12 --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64
   --dest WHEELS NAME==VERSION …` for lm_eval datasets evaluate pytablewriter DataProperty
   mbstrdecoder pathvalidate tabledata tcolorpy typepy nltk dill more-itertools multiprocess chardet
   pytz pydantic pydantic_core annotated-types typing_extensions typing-inspection, and `pip wheel
   --no-deps --wheel-dir WHEELS NAME==VERSION …` for sqlitedict word2number rouge_score: 16 MB.
2. On the machine, in this repository: `pip install --no-index --no-deps --target /tmp/site
   WHEELS/*.whl`, `python -m compileall -q /tmp/site`, and
   `export PYTHONPATH=/tmp/site:$PWD:$PWD/operator:$PWD/trainer_image`.
3. `python -m tests.bench.gpu_evaluation` writes $OUT/eval-gpu.json, or into build/bench.
4. `python -m tests.bench.gpu_evaluation --rows 16` lets lm-eval take larger batches than the
   trainer's. That compares only how fast they are: batches of other shapes give other roundings.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from tests.bench.evaluation import agreement, one_round, speeds
from tests.bench.evaluation_runs import Runs
from tests.bench.evaluation_stage import byte_tokenizer, with_questions
from tests.bench.gpu_serving import CLAIMS, CONFIG, MODEL, make_adapters, make_model
from tests.bench.results import FOLDER, tell

#: Questions of each of the 57 subjects.
ITEMS = 20
#: Prompts in one batch of the trainer: with this vocabulary and this length, logits allow no more.
ROWS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare with lm-eval on one GPU.")
    parser.add_argument("--rows", type=int, default=ROWS, help="prompts in a batch of lm-eval")
    rows = parser.parse_args().rows
    name = "eval-gpu" if rows == ROWS else f"eval-gpu-{rows}-rows"
    out = Path(os.environ.get("OUT", FOLDER))
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        tokenizer = Path(work) / "tokenizer"
        byte_tokenizer(int(str(CONFIG["vocab_size"]))).save_pretrained(tokenizer)
        make_model(tokenizer)
        list_weights(MODEL)
        make_adapters(1)
        adapter = CLAIMS / "adapters" / "a0"
        stage = with_questions(Path(work), MODEL, adapter, "bfloat16", ITEMS)
        runs = Runs(stage, Path(work), out / f"{name}.log")
        runs.prepare()
        print(f"    all made after {time.monotonic() - began:.0f} s", flush=True)
        rounds = [one_round(runs, 0, rows)]
    figures = speeds(rounds)
    if rows == ROWS:
        figures += agreement(rounds)
    if not tell(name, figures, out):
        raise SystemExit("a bound is not kept")


def list_weights(model: Path) -> None:
    """Write the index without which transformers does not find weights in several files."""
    from safetensors import safe_open

    files: dict[str, str] = {}
    for path in sorted(model.glob("*.safetensors")):
        with safe_open(path, "pt") as weights:
            files |= dict.fromkeys(weights.keys(), path.name)
    index = {"metadata": {}, "weight_map": files}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


if __name__ == "__main__":
    main()
