"""Bytes that a training step takes on one device, and the bytes there are. Imports no framework.

The counts are checked against what the compiler allocates (tests/lmscale/test_memory.py).
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lmscale.config import MeshConfig, Remat, Study
from lmscale.ngram_counts import BLOCK_TOKENS
from lmscale.plan import Trajectory
from lmscale.shapes import EncoderDecoderShape, NgramShape, RecurrentShape, Shape

CONTROL_GROUPS = {"": ("/sys/fs/cgroup", "memory.max"), "memory": ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")}

FILLED = 0.8  # share of a device's memory that a step is planned to fill
FLOAT32 = 4
MOMENTS = 2  # of Adam
# What the backward pass needs of a layer, in numbers a token
RESIDUAL_WIDTHS = 5  # of D: both residual sums, both norms and what the second adds
INNER_WIDTHS = 6  # of H K: query, key and value, two of them rotated, and their mixture
FEEDFORWARD_WIDTHS = (
    3  # of F: before, inside and after the GELU; of an LSTM, its gates before, inside and their gradients
)
MEMORY_WIDTHS = 4  # of D: an LSTM's memory and output, and what the gates make of them
# Of H S: scores, their softmax and its gradient; by blocks on a CPU; none where it is fused (lmscale.network.attention)
SCORE_ROWS = {"cpu": 1, "accelerator": 3, "fused": 0}
# Of an n-gram's stored count: key and count (12), both again while grams are merged in (12), and in its model the same
# with adjusted counts and, at the most, a context for each (16 + 40) with what makes them (24)
COUNT_BYTES = 104
COUNTED_TOKEN_BYTES = 50  # of a block of tokens while it is sorted (lmscale.ngram_counts)
LOGIT_ROWS = 2  # of V, in float32: the logits and their gradient
LOGIT_BYTES = 2**29  # of float32 logits on one device: larger ones are made in parts (lmscale.network.output_layer)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What there is for a step on each device of a mesh."""

    device_bytes: float
    platform: Literal["cpu", "accelerator"]
    shared: bool  # devices that are threads of one host: more of them bring no more memory


@dataclass(frozen=True, kw_only=True)
class StepBytes:
    """Bytes of a training step on one device."""

    state: float  # parameters and moments
    gradients: float  # and, with microbatches, the sum that they are added to
    gathered: float  # a layer's matrices put together from the fsdp axis, and their whole gradient
    activations: float  # kept for the backward pass
    logits: float

    @property
    def total(self) -> float:
        return self.state + self.gradients + self.gathered + self.activations + self.logits


def step_bytes(
    trajectory: Trajectory, mesh: MeshConfig, microbatches: int, remat: Remat, platform: str, replicas: int = 1
) -> StepBytes:
    """Bytes of one step of `replicas` trajectories like this one on each device of a mesh; of an n-gram the most."""
    shape, h = trajectory.shape, trajectory.hyperparameters
    if isinstance(shape, NgramShape):
        most = shape.counts_most(trajectory.runs[-1].tokens)
        return StepBytes(
            state=float(COUNT_BYTES * most), gradients=0.0, gathered=0.0, activations=_block(trajectory), logits=0.0
        )
    half = h.compute_dtype == "bfloat16" or (h.compute_dtype == "auto" and platform != "cpu")
    number = 2 if half else FLOAT32
    tokens = h.batch_tokens / (mesh.data * mesh.fsdp * microbatches)
    fused = platform != "cpu" and half and shape.head_size % 8 == 0
    layer, matrices = _layer(shape, h.sequence, mesh.tensor, SCORE_ROWS["fused" if fused else platform])
    depth = shape.depth * (2 if isinstance(shape, EncoderDecoderShape) else 1)
    match remat:
        case "none":
            kept = depth * layer
        case "products":
            kept = depth * _products(shape, mesh.tensor) + layer
        case "layer":
            kept = depth * shape.width + layer
    params, split = shape.params / (mesh.fsdp * mesh.tensor), mesh.fsdp * mesh.tensor
    held, trained = trajectory.params_held / split, trajectory.params_trained / split
    adapted = trajectory.tuning is not None and bool(trajectory.tuning.adapters)
    differentiated = trained + (params if adapted else 0)  # also by the sums that adapters are part of
    logits = FLOAT32 * tokens * shape.vocab / mesh.tensor
    return StepBytes(
        state=replicas * (FLOAT32 * held + MOMENTS * moment_bytes(trajectory) * trained),
        gradients=replicas * (1 if microbatches == 1 else 2) * FLOAT32 * differentiated,
        gathered=replicas * (number + FLOAT32) * matrices if mesh.fsdp > 1 else 0.0,
        activations=replicas * number * tokens * kept,
        logits=replicas * LOGIT_ROWS * min(logits, LOGIT_BYTES),
    )


def moment_bytes(trajectory: Trajectory) -> int:
    """Of a number of Adam's moments."""
    return 2 if trajectory.hyperparameters.moments_dtype == "bfloat16" else FLOAT32


def _products(shape: Shape, tensor: int) -> float:
    """Numbers a token that a layer keeps of its matrix products on a device, and its input: the products of attention
    and its output, or of an LSTM's gates nothing, for they depend on each other; the wide product of the feed-forward.
    """
    if isinstance(shape, RecurrentShape):
        return shape.width
    inner, attentions = shape.heads * shape.head_size, 2 if isinstance(shape, EncoderDecoderShape) else 1
    return (1 + attentions) * shape.width + (attentions * 4 * inner + shape.feedforward) / tensor


def _block(trajectory: Trajectory) -> float:
    return float(COUNTED_TOKEN_BYTES * min(BLOCK_TOKENS, trajectory.runs[-1].tokens))


def counts_that_fit(trajectory: Trajectory, memory: Memory) -> int:
    """How many counts an n-gram can store where it may fill FILLED of a memory."""
    return max(1, int((FILLED * memory.device_bytes - _block(trajectory)) / COUNT_BYTES))


def _layer(shape: Shape, sequence: int, tensor: int, score_rows: int) -> tuple[float, float]:
    """Of a layer on a device: numbers kept for the backward pass, a token, and numbers of its matrices.

    Of an encoder and a decoder both count as the decoder's, which looks at its own tokens and at the source.
    """
    if isinstance(shape, RecurrentShape):
        gates = FEEDFORWARD_WIDTHS * shape.feedforward + MEMORY_WIDTHS * shape.width
        return RESIDUAL_WIDTHS * shape.width + gates / tensor, 8 * shape.width**2 / tensor
    inner, attentions = shape.heads * shape.head_size, 2 if isinstance(shape, EncoderDecoderShape) else 1
    attention = INNER_WIDTHS * inner + score_rows * shape.heads * sequence
    split = attentions * attention + FEEDFORWARD_WIDTHS * shape.feedforward
    matrices = attentions * 4 * shape.width * inner + 2 * shape.width * shape.feedforward
    return RESIDUAL_WIDTHS * shape.width + split / tensor, matrices / tensor


def study_memory(
    study: Study, *, workers: int, accelerator: bool, device_bytes: float | None = None, hosts: int = 1
) -> Memory | None:
    """What a device has for this study: as the study says; else what the accelerator said of itself; else a worker's
    share of this host, one of `hosts` that make up the mesh. None for an accelerator that was not asked.
    """
    platform = "accelerator" if accelerator else "cpu"
    if study.device_memory_bytes is not None:
        return Memory(device_bytes=study.device_memory_bytes, platform=platform, shared=False)
    if accelerator:
        return None if device_bytes is None else Memory(device_bytes=device_bytes, platform=platform, shared=False)
    process, _ = resource.getrlimit(resource.RLIMIT_AS)
    share = host_bytes() / workers
    share = share if process == resource.RLIM_INFINITY else min(share, process)
    return Memory(device_bytes=share / -(-study.mesh.devices // hosts), platform=platform, shared=True)


def host_memory(study: Study, workers: int) -> Memory:
    """A worker's share of this host, or what the study says that a device has."""
    found = study_memory(study, workers=workers, accelerator=False)
    assert found is not None
    return found


def host_bytes() -> float:
    """Memory that the processes here may use together: all of the machine's, or less by their control group.

    What others use at the moment is not taken off, so that a resumed run is laid out as it was.
    """
    limits = []
    try:
        total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:"))
        limits.append(1024.0 * int(total.split()[1]))
        limits += _control_group_bytes()
    except OSError:  # not Linux
        limits.append(float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
    return min(limits)


def _control_group_bytes() -> list[float]:
    """Limits of the control group of this process and of those above it, of both versions."""
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in CONTROL_GROUPS:
            continue
        root, name = CONTROL_GROUPS[controllers]
        folder = Path(root + path)
        for place in (folder, *folder.parents):
            if not place.is_relative_to(root):
                break
            text = (place / name).read_text().strip() if (place / name).is_file() else "max"
            found += [float(text)] if text.isdigit() else []
    return found


def in_words(number: float) -> str:
    """Bytes for a reader: 1.25 GB."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1e3:.3g} kB"
