"""The machine below: processors, memory, accelerator, and the folders that may be written.

The container's root filesystem is read-only; only the scratch folder, /tmp and the output are not.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.api.trainer_contract import SCRATCH_FOLDER

from tunesmith_trainer.processes import local_rank, local_world_size

if TYPE_CHECKING:
    import torch


def scratch_folder() -> Path:
    """Where checkpoints and caches go."""
    scratch = Path(SCRATCH_FOLDER)
    if scratch.is_dir() and os.access(scratch, os.W_OK):
        return scratch
    return Path(tempfile.gettempdir())


def prepare_environment() -> None:
    """Point the libraries at writable folders. They read these variables when they are imported."""
    caches = scratch_folder() / "cache"
    for variable, value in {
        "HF_HOME": str(caches / "huggingface"),
        "XDG_CACHE_HOME": str(caches),
        "TRITON_CACHE_DIR": str(caches / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TQDM_DISABLE": "1",
        # The tokenizer's own threads and those of the data loader's processes deadlock.
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(max(1, processors() // local_world_size())),
        # A thread that waits for its sisters gives its core away at once: on a shared node, to
        # spin is to take time from whatever it waits for.
        "OMP_WAIT_POLICY": "PASSIVE",
    }.items():
        os.environ.setdefault(variable, value)


def use_one_gpu() -> None:
    """A process on its own drives one GPU; the libraries would split batches over all they see."""
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")


def processors() -> int:
    """Cores this process may use: its affinity, or the container's CPU limit where that is less."""
    available = len(os.sched_getaffinity(0))
    limit = cpu_limit()
    return max(1, available if limit is None else min(available, int(limit + 0.5)))


def cpu_limit() -> float | None:
    """The container's CPU limit in cores, as its control group states it (version 2, then 1)."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        group = Path("/sys/fs/cgroup/cpu")
        microseconds = int((group / "cpu.cfs_quota_us").read_text())
        return (
            microseconds / int((group / "cpu.cfs_period_us").read_text())
            if microseconds > 0
            else None
        )
    except (OSError, ValueError):
        return None


def device() -> torch.device:
    import torch

    return torch.device("cuda", local_rank()) if torch.cuda.is_available() else torch.device("cpu")


def device_name(of: torch.device) -> str:
    """Which product computes: two GPUs of different make round differently."""
    import torch

    return str(torch.cuda.get_device_name(of)) if of.type == "cuda" else platform.machine()


def compute_type(on: torch.device) -> torch.dtype:
    """The type in which the frozen base model is held and computed.

    bfloat16 on GPUs, and on CPUs that multiply it in hardware; on others float32 is faster.
    """
    import torch

    return torch.bfloat16 if on.type == "cuda" or has_bfloat16_products() else torch.float32


def has_bfloat16_products() -> bool:
    import torch

    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def use_all_processors() -> None:
    import torch

    torch.set_num_threads(max(1, processors() // local_world_size()))


@contextmanager
def at_most(more: int) -> Iterator[None]:
    """So many bytes more than now, and a MemoryError for whoever asks for others.

    For reading what strangers wrote: what unpacks to a hundred times its size is to be refused with
    a sentence, before the kernel ends the process without any.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = data_bytes() + more
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def data_bytes() -> int:
    """What the kernel counts against RLIMIT_DATA."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()


def peak_memory_bytes() -> int:
    """Most memory used so far: of the GPU, or of the process where there is none."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
