"""The file that vLLM starts with: the server's options and the LoRA modules."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import yaml

from tunesmith.api.serving_contract import DesiredAdapter


def start_file(server: str, modules: Iterable[DesiredAdapter]) -> str:
    """The options with the modules added. One bad module would keep the whole server from
    starting: only those that passed pre-flight may come here."""
    options = yaml.safe_load(server)
    if "enable-lora" in options:
        chosen = [json.dumps({"name": each.model, "path": each.path}) for each in modules]
        if chosen:
            options["lora-modules"] = chosen
    return yaml.safe_dump(options, sort_keys=False, width=1 << 20)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that nobody ever reads half of it; unchanged text is left alone."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.staging")
    staging.write_text(text, encoding="utf-8")
    os.replace(staging, path)
