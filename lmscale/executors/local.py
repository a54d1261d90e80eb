"""Workers on this machine, each pinned to its share of the cores, or to GPUs or TPU chips of its own.

Small models use a core fully and two cores badly: on a two-core CPU two workers train the quickstart grid 2.5 times as
fast as one (docs/benchmarks.md). Workers agree through the leases of the trajectories, so nothing is scheduled here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from analysis.errors import InputError
from lmscale.config import Study
from lmscale.executors.cores import cores, share
from lmscale.executors.process import WORKER_RESTARTS, Events, Process, converse, job_variables
from lmscale.planning.memory import Memory, study_memory
from lmscale.study.typed import check

ACCELERATORS = ("/dev/nvidiactl", "/dev/accel0", "/dev/vfio/0", "/dev/kfd")  # NVIDIA, TPU, TPU, AMD
Kind = Literal["gpu", "tpu"]
# Of each kind, the variable that hides some, and where its devices lie in /dev, numbered
DEVICES: tuple[tuple[Kind, str, str, str], ...] = (
    ("gpu", "CUDA_VISIBLE_DEVICES", ".", "nvidia"),
    ("tpu", "TPU_VISIBLE_CHIPS", ".", "accel"),
    ("tpu", "TPU_VISIBLE_CHIPS", "vfio", ""),
)
# Chips of one host that libtpu lets one process have, and how they lie in x, y, z
TPU_BOUNDS = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1"}


def has_accelerator() -> bool:
    """Whether jax would find more than CPUs here."""
    return os.environ.get("JAX_PLATFORMS") != "cpu" and any(Path(p).exists() for p in ACCELERATORS)


def default_workers(stacks: int, devices: int, cores_each: int | None = None) -> int:
    """As many workers of `devices` devices as there are accelerators for, or one that has them all; without
    accelerators a worker a core (or `cores_each`), or one where a mesh takes them all. `stacks` are the pieces into
    which the work falls.
    """
    if has_accelerator():
        found = find_accelerators(os.environ)
        room = len(found.names) // devices if found and found.splits(devices) else 1
    else:
        room = 1 if devices > 1 else cores() // (cores_each or 1)
    return max(1, min(room, stacks))


@dataclass(frozen=True, kw_only=True)
class Accelerators:
    """Accelerators of this machine that can be dealt out to processes, by the names that hide the others."""

    kind: Kind
    names: tuple[str, ...]

    def splits(self, devices: int) -> bool:
        """Whether a process can have that many and leave the rest to others."""
        return devices < len(self.names) and (self.kind == "gpu" or devices in TPU_BOUNDS)

    def variables(self, first: int, count: int) -> dict[str, str]:
        """The environment of a process that sees only those from `first`, `count` of them.

        Of a TPU, the variables with which jax's own tests run a process a chip (jax/_src/test_multiprocess.py); a host
        of one process, whose bounds are the chips it sees.
        """
        names = ",".join(self.names[first : first + count])
        if self.kind == "gpu":
            return {"CUDA_VISIBLE_DEVICES": names}
        return {
            "TPU_VISIBLE_CHIPS": names,
            "TPU_CHIPS_PER_PROCESS_BOUNDS": TPU_BOUNDS[count],
            "TPU_PROCESS_BOUNDS": "1,1,1",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        }


def find_accelerators(environment: Mapping[str, str], devices: Path = Path("/dev")) -> Accelerators | None:
    """The NVIDIA GPUs, or else the TPU chips, that this process sees; None where there are none, or of other kinds."""
    for kind, variable, folder, prefix in DEVICES:
        found = list((devices / folder).iterdir()) if (devices / folder).is_dir() else []
        matches = [re.fullmatch(rf"{prefix}(\d+)", path.name) for path in found]
        names = [str(number) for number in sorted(int(match[1]) for match in matches if match)]
        if names:
            visible = environment.get(variable)
            chosen = names if visible is None else [name.strip() for name in visible.split(",") if name.strip()]
            return Accelerators(kind=kind, names=tuple(chosen))
    return None


class Local:
    """Workers as processes of this machine."""

    def __init__(self, study: Study):
        self.study = study

    @property
    def accelerator(self) -> bool:
        return has_accelerator()

    def default_workers(self, stacks: int, together: int) -> int:
        return default_workers(stacks, self.study.mesh.devices, self.study.executor.cpus)

    def memory(self, workers: int, together: int) -> Memory | None:
        return study_memory(self.study, workers=workers, accelerator=self.accelerator)

    def run(self, arguments: list[str], count: int, together: int, stops: Callable[[], int]) -> Events:
        accelerators = find_accelerators(os.environ) if self.accelerator else None
        processes = self.processes(count, together, accelerators)
        return converse([*arguments, "--workers", str(count)], processes, stops, restarts=WORKER_RESTARTS)

    def detach(self, arguments: list[str], count: int, together: int) -> str:
        raise InputError("detach: workers on this machine end with the sweep; leave it running, or use slurm")

    def processes(self, count: int, together: int, accelerators: Accelerators | None) -> list[Process]:
        """The processes of `count` workers: those of one share its cores and, where several workers divide the
        accelerators, each has its own. Raises InputError where there are fewer accelerators than that takes.
        """
        devices = self.study.mesh.devices
        dealt = accelerators if count > 1 else None
        if dealt is not None:
            room = len(dealt.names) // devices if dealt.splits(devices) else 1
            check(
                count <= room,
                "workers",
                count,
                f"of {devices} devices each do not fit on the {len(dealt.names)} here, which no two can share; "
                f"--workers {max(1, room)} do (small models are trained together on one: --replicas)",
            )
            check(
                together == 1 or dealt.kind == "gpu",
                "processes",
                together,
                "of a worker on one TPU host; one process drives all the chips it sees: --processes 1",
            )
        own = devices // together  # devices of a process
        each = self.study.executor.cpus
        processes = []
        for worker in range(count):
            for process, variables in enumerate(job_variables(together)):
                if dealt is not None:
                    variables |= dealt.variables(worker * devices + process * own, own)
                mine = share(worker, count, None if each is None else each * together)
                processes.append(Process(worker=worker, variables=variables, cores=mine))
        return processes
