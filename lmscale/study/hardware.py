"""Where a study is trained: the mesh of devices, and what starts the workers. Imports no framework."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

from lmscale.study.typed import check, normalise

DEVICES_MAX = 16_384  # more than the largest slices of TPUs have
Engine = Literal["local", "ray", "slurm"]


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each mesh axis. Written `data,fsdp,tensor` on the command line, such as 2,2,2."""

    WORDS: ClassVar[str] = "a mesh such as 2,2,2"

    data: int = 1
    fsdp: int = 1
    tensor: int = 1

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Raises ValueError if the text is not three whole numbers."""
        data, fsdp, tensor = (int(part) for part in text.split(","))
        return cls(data=data, fsdp=fsdp, tensor=tensor)

    def __post_init__(self) -> None:
        normalise(self, "mesh.")
        for name in ("data", "fsdp", "tensor"):
            check(getattr(self, name) >= 1, f"mesh.{name}", getattr(self, name), "must be at least 1")
        check(
            self.devices <= DEVICES_MAX,
            "mesh",
            str(self),
            f"takes more than {DEVICES_MAX:,} devices; choose a smaller one",
        )

    @property
    def devices(self) -> int:
        return self.data * self.fsdp * self.tensor

    def __str__(self) -> str:
        return f"{self.data},{self.fsdp},{self.tensor}"


@dataclass(frozen=True, kw_only=True)
class ExecutorConfig:
    """Where the workers of a sweep run, and what each of their processes gets there; no part of a run's identity."""

    name: Engine = "local"
    cpus: int | None = None  # cores of a process. None: its share of this machine, or one on a cluster
    gpus: int = 0  # GPUs of a process on a cluster (on this machine they are dealt out as the mesh takes them)
    tpus: int = 0  # TPU chips of a process, ray
    memory_bytes: float | None = None  # of a process on a cluster; none: what the cluster gives by itself
    address: str | None = (
        None  # ray: auto, host:port or ray://host:port; none: a cluster of this machine, for the sweep
    )
    partition: str | None = None  # slurm, as sbatch has it; none: its default
    account: str | None = None
    qos: str | None = None
    minutes: int = 60  # slurm: after which a job saves and is queued again
    sbatch: dict[str, str] = field(default_factory=dict)  # further options of sbatch, such as {"constraint": "a100"}

    def __post_init__(self) -> None:
        normalise(self, "executor.")
        check(self.cpus is None or self.cpus >= 1, "executor.cpus", self.cpus, "must be at least 1")
        check(self.gpus >= 0, "executor.gpus", self.gpus, "must not be negative")
        check(self.tpus >= 0, "executor.tpus", self.tpus, "must not be negative")
        memory = self.memory_bytes
        check(memory is None or memory >= 1e6, "executor.memory_bytes", memory, "must be at least 1e6 bytes")
        check(self.minutes >= 1, "executor.minutes", self.minutes, "must be at least 1")

    @property
    def accelerated(self) -> bool:
        """Whether its processes are given more than CPUs, on a cluster."""
        return self.gpus + self.tpus > 0
