"""Workers as jobs of a Slurm cluster, submitted through submitit as one array.

A task of a job starts `lmscale run`, and writes what it says into a file on the results folder, where the sweep reads
it. The tasks of one job form a jax.distributed job (lmscale/processes/job.py reads Slurm's variables). Before its time
limit (SIGUSR2) a worker saves and its job is queued again; preempted, or queued again by somebody (SIGTERM), it saves,
and Slurm queues it again. What a job is killed without warning for, costs what was trained since its last checkpoint.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import closing, redirect_stderr
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from analysis.errors import InputError
from lmscale import FAILURE, INTERRUPTED
from lmscale.config import Study
from lmscale.executors.base import cluster_arguments, cluster_memory
from lmscale.executors.cores import claimed, neighbours
from lmscale.executors.process import CPU_ALONE, WORKER_RESTARTS, Event, Events, Process, converse
from lmscale.planning.memory import Memory
from lmscale.processes.job import COORDINATOR, PROCESS, PROCESSES
from lmscale.study.typed import check

WORKERS = 16  # of a sweep that does not say: each takes one piece of work after another
RESTARTS = 100  # of a job by its own request: whoever never gets on must not be queued for ever
WARNING_SECONDS = 90  # before its time limit a job is told, or a quarter of it
READ_SECONDS = 0.3
QUEUE_SECONDS = (2.0, 30.0)  # between looks at the queue: soon at first, then rarely
LOOKS = 2  # at a queue without a job, until the job is over and its last lines are to be seen on the shared folder
ENDING_SECONDS = 60.0  # Slurm ends the other tasks of a job that is queued again


@dataclass(frozen=True, kw_only=True)
class Task:
    """What submitit calls in every task of a job."""

    worker: int
    arguments: tuple[str, ...]
    together: int
    cpus: int
    accelerated: bool
    folder: str  # of the files of events

    def __call__(self) -> None:
        """Works until there is nothing left, or a signal comes; ends with the status of `lmscale run`."""
        received: list[int] = []
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, lambda n, frame: received.append(n))
        rank, restarts = int(os.environ["SLURM_PROCID"]), int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        with open(events_file(Path(self.folder), self.worker, rank), "a", encoding="utf-8") as file:
            file.write("\n")  # ends a line that a killed predecessor may have torn
            status = self.converse(file, restarts, received)
        if status == INTERRUPTED and signal.SIGUSR2 in received and restarts < RESTARTS:
            if rank == 0:
                subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
            else:  # a task that ends first may take the job with it
                time.sleep(ENDING_SECONDS)
        if status:
            sys.exit(status if status > 0 else 128 - status)

    def converse(self, file: Any, restarts: int, received: list[int]) -> int:
        """Runs the command, one line of JSON for each event; returns its status."""
        environment = {} if self.accelerated else dict(CPU_ALONE)
        if self.together == 1:
            environment[PROCESSES] = "1"
        else:
            for name in (COORDINATOR, PROCESSES, PROCESS):  # of the sweep, if any: Slurm says who is in this job
                os.environ.pop(name, None)
        arguments = [*self.arguments, "--workers", str(neighbours(self.cpus * self.together))]
        status = FAILURE
        tell(file, {"begun": restarts})
        with claimed(self.cpus) as mine:
            process = Process(
                worker=self.worker, variables=environment, cores=frozenset() if self.accelerated else mine
            )
            with closing(self.talk(arguments, process, received)) as events:
                for event in events:
                    if event.status is None:
                        tell(file, {"message": event.message})
                    else:
                        status = event.status
                        tell(file, {"status": status, "stderr": event.stderr})
        return status

    def talk(self, arguments: list[str], process: Process, received: list[int]) -> Events:
        """One of several tasks cannot be started again by itself."""
        again = WORKER_RESTARTS if self.together == 1 else 0
        return converse(arguments, [process], lambda: min(1, len(received)), shielded=True, restarts=again)


def tell(file: Any, line: dict) -> None:
    file.write(json.dumps(line, allow_nan=False) + "\n")
    file.flush()


def events_file(folder: Path, worker: int, rank: int) -> Path:
    return folder / f"{worker}-{rank}.jsonl"


class Slurm:
    """Workers as jobs; `folder` is that of the study's results, which all nodes have to see."""

    def __init__(self, study: Study, folder: Path):
        if find_spec("submitit") is None:
            raise InputError(
                "executor.name: 'slurm' needs submitit; pip install 'lmscale[slurm]', or choose local or ray"
            )
        missing = [name for name in ("sbatch", "srun", "squeue", "scancel") if shutil.which(name) is None]
        if missing:
            raise InputError(
                f"executor.name: 'slurm' finds no {missing[0]} here; run the sweep where jobs are submitted, or choose "
                "local or ray"
            )
        self.study = study
        self.config = study.executor
        self.cpus = self.config.cpus or 1
        self.folder = folder.absolute() / "slurm" / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"

    @property
    def accelerator(self) -> bool:
        return self.config.accelerated

    def default_workers(self, stacks: int, together: int) -> int:
        return max(1, min(stacks, WORKERS))

    def memory(self, workers: int, together: int) -> Memory | None:
        return cluster_memory(self.study, together)

    def detach(self, arguments: list[str], count: int, together: int) -> str:
        jobs = self.submit(arguments, count, together)
        return f"{count} jobs submitted: {', '.join(sorted({job.partition('_')[0] for job in jobs}))}"

    def run(self, arguments: list[str], count: int, together: int, stops: Callable[[], int]) -> Events:
        jobs = self.submit(arguments, count, together)
        left = True
        try:
            yield from self.follow(jobs, together, stops)
            left = False
        finally:
            if left:
                scancel(jobs)

    def submit(self, arguments: list[str], count: int, together: int) -> list[str]:
        """Submits an array of `count` jobs of `together` tasks; returns the id of each. Raises InputError with sbatch's
        own words where it refuses.
        """
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        check(
            together == 1 or self.config.gpus <= 1,
            "executor.gpus",
            self.config.gpus,
            f"of each of {together} tasks; a task of several takes one, as jax has it: --executor.gpus 1",
        )
        self.folder.mkdir(parents=True)
        for worker in range(count):  # so that no shared folder remembers that they were not there
            for rank in range(together):
                events_file(self.folder, worker, rank).touch()
        executor = submitit.SlurmExecutor(self.folder, python=f"{shlex.quote(sys.executable)} -P")
        executor.update_parameters(**self.parameters(count, together))
        with_memory = tuple(cluster_arguments(self.study, arguments, together))
        tasks = [
            Task(
                worker=worker,
                arguments=with_memory,
                together=together,
                cpus=self.cpus,
                accelerated=self.accelerator,
                folder=str(self.folder),
            )
            for worker in range(count)
        ]
        try:
            with redirect_stderr(io.StringIO()), executor.batch():  # submitit prints sbatch's words as well
                jobs = [executor.submit(task) for task in tasks]
        except (FailedJobError, FailedSubmissionError) as error:
            words = " ".join(str(error).replace("sbatch: error: ", "").split())
            raise InputError(f"executor: sbatch says: {words}; correct the executor's settings") from None
        return [job.job_id for job in jobs]

    def parameters(self, count: int, together: int) -> dict[str, Any]:
        """submitit's parameters of a job."""
        config = self.config
        further: dict[str, Any] = {"requeue": True}
        step = [f"--cpus-per-task={self.cpus}"]  # srun does not take it from sbatch since Slurm 22.05
        if together > 1:
            further |= {"ntasks": together, "nodes": f"1-{together}"}
            step += ["--gpu-bind=none"] * bool(config.gpus)  # jax chooses a GPU by the task's number on its node
        further |= {name: True if value == "true" else value for name, value in config.sbatch.items()}
        found = {
            "job_name": f"lmscale-{self.study.name}",
            "time": config.minutes,
            "signal_delay_s": min(WARNING_SECONDS, config.minutes * 60 // 4),
            "cpus_per_task": self.cpus,
            "gpus_per_task": config.gpus or None,
            "mem_per_cpu": None
            if config.memory_bytes is None
            else f"{-(-config.memory_bytes // self.cpus // 1e6):.0f}M",
            "partition": config.partition,
            "account": config.account,
            "qos": config.qos,
            "array_parallelism": count,
            "srun_args": step,
            "additional_parameters": further,
        }
        return {name: value for name, value in found.items() if value is not None}

    def follow(self, jobs: list[str], together: int, stops: Callable[[], int]) -> Events:
        """What the workers write, until all their jobs have ended."""
        workers = [
            [Tail(events_file(self.folder, worker, rank)) for rank in range(together)] for worker in range(len(jobs))
        ]
        running = set(range(len(jobs)))
        queue = Queue(jobs)
        asked = 0
        while running:
            if asked < stops():
                asked += 1
                if asked == 1:  # those that run save and end; those that wait are gone
                    scancel(jobs, "--state=PENDING")
                    scancel(jobs, "--signal=TERM", "--state=RUNNING")
                else:
                    scancel(jobs)
            queue.look()
            time.sleep(READ_SECONDS)
            for worker in sorted(running):
                gone = queue.gone(jobs[worker])
                for tail in workers[worker]:
                    yield from tail.read(worker, jobs[worker])
                if gone or all(tail.finished for tail in workers[worker]):
                    running.remove(worker)
                    for tail in workers[worker]:
                        yield tail.end(worker, jobs[worker], asked)


@dataclass
class Tail:
    """A file of events, read as it grows."""

    path: Path
    offset: int = 0
    status: int | None = None  # of the process, once it has ended
    stderr: str = ""

    @property
    def finished(self) -> bool:
        """Whether the process ended for good. One that was interrupted may be queued again."""
        return self.status not in (None, INTERRUPTED)

    def read(self, worker: int, job: str) -> Events:
        """What was written since the last call, in whole lines."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                whole, _, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return
        self.offset += len(whole) + 1 if whole else 0
        for text in whole.splitlines():
            try:
                line = json.loads(text)
            except ValueError:  # empty, or torn by a kill
                continue
            if "message" in line:
                yield Event(worker=worker, message=line["message"])
            elif "begun" in line:
                self.status = None
                if line["begun"]:
                    words = f"worker {worker}: job {job} goes on (restart {line['begun']})"
                    yield Event(worker=worker, message={"event": "say", "line": words})
            else:
                self.status, self.stderr = line["status"], line["stderr"]

    def end(self, worker: int, job: str, asked: int) -> Event:
        """The last event of the process: its own status, or that Slurm ended it, as it was `asked` to or not."""
        if self.status is not None:
            return Event(worker=worker, message={}, status=self.status, stderr=self.stderr)
        return Event(
            worker=worker, message={}, status=INTERRUPTED if asked else FAILURE, stderr=f"job {job} {outcome(job)}"
        )


@dataclass
class Queue:
    """Which of our jobs wait or run, by a look at the queue now and then."""

    jobs: list[str]
    began: float = field(default_factory=time.monotonic)
    looked: float = 0.0
    missed: dict[str, int] = field(default_factory=dict)  # by how many looks a job was not there

    def look(self) -> None:
        now = time.monotonic()
        soonest, rarest = QUEUE_SECONDS
        pause = soonest if 1 in self.missed.values() else max(soonest, min(rarest, (now - self.began) / 20))
        if now - self.looked < pause:
            return
        self.looked = now
        # of the user, not of the jobs: those that ended long ago are an error to squeue
        command = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:  # else the controller does not answer, and nothing is known
            there = set(done.stdout.split())
            self.missed = {job: self.missed.get(job, 0) + 1 for job in self.jobs if job not in there}

    def gone(self, job: str) -> bool:
        return self.missed.get(job, 0) >= LOOKS


def scancel(jobs: list[str], *options: str) -> None:
    """Ends jobs, or signals them. Those that have ended are no error."""
    subprocess.run(["scancel", "--quiet", *options, *sorted({job.partition("_")[0] for job in jobs})], check=False)


def outcome(job: str) -> str:
    """How a job ended, in Slurm's words, while it still remembers."""
    done = subprocess.run(["scontrol", "--oneliner", "show", "job", job], capture_output=True, text=True)
    pairs = [word.partition("=") for word in done.stdout.split()]
    found = {name: value for name, _, value in pairs}
    if "JobState" not in found:
        return "ended, and left no status (see its log beside the events)"
    return f"ended as {found['JobState']} ({found.get('Reason', 'None')}, exit {found.get('ExitCode', '?')})"
