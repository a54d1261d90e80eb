"""Flags of TPU's compiler that let gathers of weights go on beside the products before them. No framework.

Without them a step compiled for four chips of a v5p over fsdp had none of its layers' eight gathers overlapped, with
them six; for a v5e they overlap without (docs/aot.md). They are among those that MaxText trains with.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

VARIABLE = "LIBTPU_INIT_ARGS"
FLAGS = (
    "xla_enable_async_all_gather",
    "xla_tpu_enable_async_collective_fusion",
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather",
    "xla_tpu_enable_async_collective_fusion_multiple_steps",
    "xla_tpu_overlap_compute_collective_tc",
)


def hide_latency(environment: MutableMapping[str, str] = os.environ) -> None:
    """To be called before jax is imported. What the user says of a flag stays; nothing but libtpu reads them."""
    said = environment.get(VARIABLE, "")
    named = {word.removeprefix("--").partition("=")[0] for word in said.split()}
    added = [f"--{flag}=true" for flag in FLAGS if flag not in named]
    environment[VARIABLE] = " ".join([*said.split(), *added])
