"""The numbers of each call, and where they go: TensorBoard, Weights & Biases, the record; shares of the peak."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from lmscale.evaluate import Score
from lmscale.plan import Run, Trajectory
from lmscale.planning import accelerators
from lmscale.processes import distributed
from lmscale.records import Workspace
from lmscale.store.places import beside
from lmscale.training.event_files import EventFile
from lmscale.training.profiler import Profiler
from lmscale.training.wandb_runs import WandbRun

Device = Any  # jax.Device, which type checkers take for a variable
MATMUL_REPEATS = 5  # the best counts: other processes only ever slow a product down


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The FLOP/s of matrix products that the devices of a mesh can do together, and where the number is from."""

    flops_per_second: float
    source: str


def peak_of(devices: Sequence[Device], dtype: str) -> Peak:
    """The peak of `devices` in `dtype` ("float32" or "bfloat16").

    Accelerators of the table have their maker's; for others a matrix product is timed. Devices of a CPU share its
    cores, so together they have the rate of one product, in float32 whatever the dtype; other hosts count anew.
    """
    first = devices[0]
    known = accelerators.find(first.device_kind)
    if known is not None:
        return Peak(
            flops_per_second=known.flops("bfloat16" if dtype == "bfloat16" else "float32") * len(devices),
            source=f"{len(devices)} x {first.device_kind}, {dtype}: {known.source}",
        )
    if first.platform == "cpu":
        width, dtype, count = 1024, "float32", distributed.hosts()
    else:
        width, count = 8192, len(devices)
    local = next(device for device in devices if device.process_index == jax.process_index())
    rate = matmul_flops_per_second(local, dtype, width)
    return Peak(flops_per_second=rate * count, source=f"{count} x measured product of {width} x {width}, {dtype}")


@cache
def matmul_flops_per_second(device: Device, dtype: str, width: int) -> float:
    """The rate of one matrix product of two squares on a device, measured once in a process."""
    square = jax.device_put(np.random.default_rng(0).normal(size=(width, width)), device).astype(jnp.dtype(dtype))
    product = jax.jit(jnp.matmul)
    product(square, square).block_until_ready()
    seconds = []
    for _ in range(MATMUL_REPEATS):
        began = time.perf_counter()
        product(square, square).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return 2 * width**3 / min(seconds)


def memory_bytes(devices: Iterable[Device]) -> int:
    """The most memory held so far: by the fullest of this process's devices, or, where they do not tell (a CPU), by
    the process.
    """
    stats = [device.memory_stats() for device in devices if device.process_index == jax.process_index()]
    used = [s["peak_bytes_in_use"] for s in stats if s and "peak_bytes_in_use" in s]
    if used:
        return max(used)
    if sys.platform == "linux":  # not ru_maxrss, which a process inherits from the one that started it
        status = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else held * 1024


class HostClock:
    """How long the device waits for the host, from the first call that was seen to be done (compilation is left out).

    Calls run while the host works, and their end is seen only when it looks. So of each stretch of host work, from the
    end of a dispatch or a wait to the beginning of the next: all of it counts where no call is in flight at its end
    (the device may have stood still since its beginning: an upper bound); otherwise nothing on an accelerator, and on
    a CPU the time that this thread computed, which the call in flight lacked (an upper bound where cores were free).
    """

    def __init__(self, shares_cores: bool):
        self.shares_cores = shares_cores
        self.host_seconds = 0.0
        self.began: float | None = None
        self._in_flight: jax.Array | None = None
        self._wall = self._cpu = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around a dispatch, or a wait for its result."""
        if self.began is not None:
            if self._in_flight is None or self._in_flight.is_ready():  # pyright: ignore[reportAttributeAccessIssue]
                self.host_seconds += time.monotonic() - self._wall
            elif self.shares_cores:
                self.host_seconds += time.thread_time() - self._cpu
        yield
        self._wall, self._cpu = time.monotonic(), time.thread_time()

    def dispatched(self, output: jax.Array) -> None:
        """The last call in flight, by an array that it will give."""
        self._in_flight = output

    def seen(self) -> None:
        """A call was awaited."""
        if self.began is None:
            self.began = self._wall

    @property
    def share(self) -> float | None:
        """Of the wall time until now; None before the second wait.

        To be asked when nothing is in flight: the time since the last wait is the host's.
        """
        now = time.monotonic()
        if self.began is None or self._wall <= self.began:
            return None
        return (self.host_seconds + now - self._wall) / (now - self.began)


class Log(Protocol):
    """Where scalars by step go, one for each trunk and each cooldown."""

    def write(self, step: int, values: dict[str, float], *, first: int) -> None:
        """Adds the scalars of `step`, which stand for the steps from `first` on."""
        ...

    def summarise(self, step: int, values: dict[str, float]) -> None:
        """Adds what stands beside the numbers of the last step, `step`."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of the compiled program, seen to be done: means over its steps, and its last step's rate."""

    run: Run
    phase: str  # "trunk" or "cooldown"
    first: int  # the first step it trained, counted from 1
    step: int  # the last
    seconds: float  # a step
    loss_nats: float
    grad_norm: float
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Of one call. The share is of the peak, by the model's FLOPs (shapes.train_flops)."""

    tokens_per_second: float
    share_of_peak: float


class Telemetry:
    """The numbers of one trajectory: `call` runs its compiled program, `account` takes what a call gave."""

    def __init__(
        self,
        trajectory: Trajectory,
        devices: Sequence[Device],
        dtype: str,
        workspace: Workspace,
        logs: tuple[str, ...],
        profile: range | None,
        say: Callable[[str], None],
    ):
        self.trajectory, self.devices, self.workspace, self.logs = trajectory, devices, workspace, logs
        self.peak = peak_of(devices, dtype)
        self.clock = HostClock(shares_cores=devices[0].platform == "cpu")
        self.profiler = Profiler(profile, beside(workspace.trajectory(trajectory.id)) / "profile", say)
        self._open: dict[str, list[Log]] = {}

    def call(self, start: int, stop: int, advance: Callable, *inputs: Any) -> tuple[Any, Any]:
        """The compiled program on `inputs` for the steps start + 1 .. stop: its state and metrics, not awaited."""

        def dispatch() -> tuple[Any, Any]:
            with self.clock.waiting():
                state, metrics = advance(*inputs)
            self.clock.dispatched(metrics.loss_nats)
            return state, metrics

        return self.profiler.call(start, stop, dispatch, inputs)

    def speed(self, seconds: float) -> Speed:
        """Of steps that take `seconds` each."""
        h, shape = self.trajectory.hyperparameters, self.trajectory.shape
        flops = shape.train_flops(h.batch_tokens, h.sequence) / seconds
        return Speed(tokens_per_second=h.batch_tokens / seconds, share_of_peak=flops / self.peak.flops_per_second)

    def account(self, call: Call, *, new: bool) -> Speed:
        """Notes a call; `new` is false for steps that the curve had before (a trunk walked again)."""
        speed = self.speed(call.seconds)
        if new:
            values = {
                "loss_nats/train": call.loss_nats,
                "grad_norm": call.grad_norm,
                "learning_rate": call.learning_rate,
                "memory_bytes": float(memory_bytes(self.devices)),
                **asdict(speed),
            }
            for log in self._logs(call.run, call.phase):
                log.write(call.step, values, first=call.first)
        return speed

    def evaluated(self, run: Run, name: str, scores: Sequence[Score]) -> None:
        """Notes what a finished run is worth on the whole of an evaluation set."""
        values = {f"{score.metric}/{name}": score.value for score in scores if not score.slice}
        for log in self._logs(run, "cooldown"):
            log.summarise(run.steps, values)

    def record(self, step_seconds: list[float]) -> dict:
        """What a run's record says, with the median speed of calls whose steps took `step_seconds` each."""
        speed = asdict(self.speed(float(np.median(step_seconds)))) if step_seconds else {}
        return {
            **speed,
            "peak_flops_per_second": self.peak.flops_per_second,
            "peak_source": self.peak.source,
            "memory_bytes": memory_bytes(self.devices),
            "host_share": self.clock.share,
        }

    def finished(self, run: Run) -> None:
        """Nothing more comes of a run."""
        for log in self._open.pop(run.id, []):
            log.close()

    def close(self) -> None:
        """Nothing more comes of the trajectory."""
        for logs in self._open.values():
            for log in logs:
                log.close()
        self._open.clear()
        self.profiler.close()

    def _logs(self, run: Run, phase: str) -> list[Log]:
        """The open logs of the trunk or of a run's cooldown."""
        key = self.trajectory.id if phase == "trunk" else run.id
        if key not in self._open:
            self._open[key] = [self._make(log, key, phase) for log in self.logs]
        return self._open[key]

    def _make(self, log: str, key: str, phase: str) -> Log:
        if log == "wandb":
            return WandbRun(
                beside(self.workspace.root),
                project=self.trajectory.study,
                run_id=key,
                group=self.trajectory.id,
                kind=phase,
                config=self.trajectory.identity,
            )
        return EventFile(self.workspace.trajectory(key) if phase == "trunk" else self.workspace.run(key))
