"""The least time that a training step can take on a slice: FLOPs, bytes of memory and bytes of links over what the
chips are rated at (Williams et al. 2009, doi:10.1145/1498765.1498785). No framework.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lmscale.config import MeshConfig, Remat
from lmscale.plan import Trajectory
from lmscale.planning.memory import FLOAT32, step_bytes
from lmscale.shapes import BACKWARD
from lmscale.tpu.collectives import Collective
from lmscale.tpu.slices import Slices

HALF = 2  # bytes of a number in the arithmetic of accelerators
READS = 3  # of a weight: forward, and by both products of the backward pass


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a step asks of each chip."""

    flops: float
    hbm_bytes: float
    ici_bytes: float
    dcn_bytes: float

    @property
    def intensity(self) -> float:
        """FLOPs a byte of memory."""
        return self.flops / self.hbm_bytes

    def seconds(self, slices: Slices) -> dict[str, float]:
        """The least time of each, if it were alone."""
        of = slices.generation
        return {
            "compute": self.flops / of.accelerator.bfloat16_flops,
            "memory": self.hbm_bytes / of.hbm_bytes_per_second,
            "links": self.ici_bytes / of.ici_bytes_per_second,
            "network": self.dcn_bytes / of.dcn_bytes_per_second,
        }

    def bound(self, slices: Slices) -> tuple[float, str]:
        """The longest of those times, as if all else were hidden behind it, and which one it is."""
        times = self.seconds(slices)
        name = max(times, key=lambda name: times[name])
        return times[name], name


def flops_per_chip(trajectory: Trajectory, mesh: MeshConfig, remat: Remat, replicas: int = 1) -> float:
    """Matrix products of a step, and those made again: with remat "layer" the layers' of the forward pass."""
    shape, h = trajectory.shape, trajectory.hyperparameters
    forward = shape.forward_flops_per_token(h.sequence)
    again = forward - 2 * shape.width * shape.vocab if remat == "layer" else 0.0
    return replicas * h.batch_tokens * ((1 + BACKWARD) * forward + again) / mesh.devices


def hbm_bytes_per_chip(
    trajectory: Trajectory, mesh: MeshConfig, microbatches: int, remat: Remat, replicas: int = 1
) -> float:
    """Bytes read and written if every array goes to memory and back once: the state, the sum of gradients at each
    microbatch, weights in half precision, what is kept for the backward pass, and logits with their gradient.
    """
    shape, h = trajectory.shape, trajectory.hyperparameters
    held = step_bytes(trajectory, mesh, microbatches, remat, "accelerator", replicas)
    params = shape.params / mesh.tensor
    reads = READS + (remat == "layer")
    gradients = 2 * microbatches * FLOAT32 * params / mesh.fsdp
    logits = 4 * FLOAT32 * h.batch_tokens / (mesh.data * mesh.fsdp) * shape.vocab / mesh.tensor
    weights = microbatches * reads * HALF * params
    return 2 * held.state + replicas * (gradients + weights + logits) + 2 * microbatches * held.activations


def sent_bytes(collective: Collective, devices: int) -> float:
    """Bytes that a chip sends in a collective over groups of `devices`, by the algorithms that send least (Thakur et
    al. 2005, doi:10.1177/1094342005051521).
    """
    share = (devices - 1) / devices
    match collective.kind:
        case "all-reduce":
            return 2 * share * collective.bytes
        case "reduce-scatter":
            return (devices - 1) * collective.bytes
        case "collective-permute" | "collective-broadcast":
            return collective.bytes
        case _:
            return share * collective.bytes


def link_bytes(collectives: Iterable[Collective], slices: Slices, devices: int) -> tuple[float, float]:
    """Bytes that a chip of a mesh of `devices` sends in a step over the links of its slice, and over the network
    between slices.

    A collective over several slices is one within each, and one between them of the part that a chip then has.
    """
    ici = dcn = 0.0
    for collective in collectives:
        group = collective.groups[0] if collective.groups else tuple(range(devices))
        across = len({device // slices.chips_each for device in group})
        within = len(group) // across
        if collective.kind == "collective-permute":
            pairs = collective.groups
            crossing = any(pair[0] // slices.chips_each != pair[-1] // slices.chips_each for pair in pairs)
            within, across = (1, 2) if crossing else (2, 1)
        if within > 1:
            ici += collective.count * sent_bytes(collective, within)
        if across > 1:
            dcn += collective.count * sent_bytes(collective, across) / within
    return ici, dcn


def expected_links(
    trajectory: Trajectory, mesh: MeshConfig, microbatches: int, remat: Remat, slices: Slices, replicas: int = 1
) -> tuple[float, float]:
    """The same before anything is compiled, of a transformer's layers.

    Over fsdp each matrix is gathered forward and backward, and its gradient reduced, at each microbatch (Rajbhandari et
    al. 2020, arXiv:1910.02054, Sec. 7); over tensor activations are reduced twice a layer each way (Shoeybi et al.
    2019, arXiv:1909.08053, Sec. 3), once more where a layer is computed again; over data gradients once a step.
    """
    shape, h = trajectory.shape, trajectory.hyperparameters
    matrices = HALF * shape.params / mesh.tensor
    fsdp = 3 * microbatches * matrices * (mesh.fsdp - 1) / mesh.fsdp
    tokens = h.batch_tokens / (mesh.data * mesh.fsdp)
    reductions = shape.depth * (4 + (remat == "layer"))
    tensor = reductions * HALF * tokens * shape.width * 2 * (mesh.tensor - 1) / mesh.tensor
    own, count = FLOAT32 * shape.params / (mesh.fsdp * mesh.tensor), slices.count
    inner = mesh.data // count
    data = 2 * own * (inner - 1) / inner
    return replicas * (fsdp + tensor + data), replicas * 2 * own / inner * (count - 1) / count


def expected_work(
    trajectory: Trajectory, mesh: MeshConfig, microbatches: int, remat: Remat, slices: Slices, replicas: int = 1
) -> Work:
    """What a step will ask of a chip, before it is compiled."""
    ici, dcn = expected_links(trajectory, mesh, microbatches, remat, slices, replicas)
    return Work(
        flops=flops_per_chip(trajectory, mesh, remat, replicas),
        hbm_bytes=hbm_bytes_per_chip(trajectory, mesh, microbatches, remat, replicas),
        ici_bytes=ici,
        dcn_bytes=dcn,
    )
