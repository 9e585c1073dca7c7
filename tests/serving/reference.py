"""What base and adapters say first, by transformers and PEFT: an opinion that is not vLLM's.

Run in the environment with torch: `python -m tests.serving.reference MODEL PROMPT NAME=ADAPTER…`
prints, for each name and for the base, the log-probabilities of the likeliest first tokens as JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

TOP = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("prompt")
    parser.add_argument("adapters", nargs="*", metavar="NAME=FOLDER")
    arguments = parser.parse_args()
    adapters = dict(each.split("=", 1) for each in arguments.adapters)
    print(json.dumps(first_tokens(arguments.model, arguments.prompt, adapters)))


def first_tokens(
    folder: Path, prompt: str, adapters: dict[str, str]
) -> dict[str, dict[str, float]]:
    """Name → token → log-probability; the base model's name is "base"."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(prompt, return_tensors="pt").input_ids
    found = {}
    for name in ("base", *adapters):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        if name != "base":
            model = PeftModel.from_pretrained(model, adapters[name])
        with torch.inference_mode():
            likelihoods = model(tokens).logits[0, -1].float().log_softmax(-1)
        values, ids = likelihoods.topk(TOP)
        found[name] = {
            tokenizer.decode([token]): float(value)
            for token, value in zip(ids.tolist(), values.tolist(), strict=True)
        }
    return found


if __name__ == "__main__":
    main()
