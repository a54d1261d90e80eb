"""Do 95 % intervals cover 95 %? Simulated studies with planted constants, fitted as any table is.

`python -m analysis.coverage` (`make soak`) simulates 2,000 studies of every design and noise, prints how often each
interval held the truth and how wide it was, and fails where the answer is not good enough. A study takes about a
quarter of a second; those already in the file of results are not repeated.
"""

import argparse
import csv
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.fit import fit
from analysis.laws import Array, Chinchilla, flops_6nd
from analysis.table import Table, from_frame
from analysis.uncertainty import interval

# Besiroglu et al. 2024, Table 1, with sizes and tokens of usual studies; and a study of minutes on a laptop.
LARGE = Chinchilla(A=482.01, B=2085.43, L0=1.8172, alpha=0.3478, beta=0.3658)
SMALL = Chinchilla(A=30.0, B=4e3, L0=1.1, alpha=0.4, beta=0.6)
NOISES = (0.001, 0.004, 0.01)  # standard deviation of log loss, of both parts together
SHARED = 0.5  # of its variance where rows share a trajectory
BEYOND = 10.0  # the budget and the held-out run, over the largest compute of the study
QUANTITIES = ("L0", "A", "B", "alpha", "beta", "a", "N*", "loss at N*", "loss of the law", "loss of a new run")
GROUPS = {"parameters": QUANTITIES[:6], "N*": QUANTITIES[6:7], "prediction": QUANTITIES[7:]}
RATIOS = frozenset({"A", "B", *QUANTITIES[6:]})  # widths are high/low - 1; of the others high - low
POOLED, LEAST = (0.93, 0.97), 0.90  # coverage asked of each group, and of every cell
BATCH = 25  # studies between two lines of progress, at most


@dataclass(frozen=True, kw_only=True)
class Design:
    """Runs (params, tokens) [n] of a study; trajectory [n] numbers, or None where every row is a run of its own."""

    name: str
    law: Chinchilla
    params: Array
    tokens: Array
    trajectory: NDArray[np.int64] | None


def grid(sizes: int) -> Design:
    """sizes x sizes independent runs: 4 to 100 tokens per parameter at every size."""
    params = np.repeat(np.geomspace(1e8, 1e10, sizes), sizes)
    tokens = params * np.tile(np.geomspace(4.0, 100.0, sizes), sizes)
    return Design(name=f"grid {sizes}x{sizes}", law=LARGE, params=params, tokens=tokens, trajectory=None)


def branched(sizes: int, counts: int, *, seeds: int = 1, law: Chinchilla = LARGE) -> Design:
    """`seeds` trajectories of every size, with `counts` token counts branched off each."""
    trajectory = np.repeat(np.arange(sizes * seeds), counts)
    if law is LARGE:
        params = np.geomspace(1e8, 1e10, sizes)[trajectory // seeds]
        tokens = params * np.tile(np.geomspace(5.0, 80.0, counts), sizes * seeds)
    else:
        params = np.geomspace(2e4, 4.7e5, sizes)[trajectory // seeds]
        tokens = np.tile(np.geomspace(5e5, 4e6, counts), sizes * seeds)
    scale = "branched" if law is LARGE else "small"
    name = f"{scale} {sizes}x{counts}" + (f"x{seeds}" if seeds > 1 else "")
    return Design(name=name, law=law, params=params, tokens=tokens, trajectory=trajectory)


DESIGNS: Mapping[str, Design] = {
    design.name: design
    for design in (
        grid(5),
        grid(8),
        branched(4, 3),
        branched(4, 5),
        branched(5, 4),
        branched(6, 4),
        branched(8, 3),
        branched(5, 4, law=SMALL),
        branched(6, 3, seeds=3),
    )
}


def simulate(design: Design, noise: float, seed: int) -> tuple[Table, float]:
    """A study whose log losses err by `noise` in all, and the log error of a new run on a trajectory of its own."""
    loss, new = losses(design, noise, seed)
    frame = pd.DataFrame({"params": design.params, "tokens": design.tokens, "loss_nats": loss})
    if design.trajectory is not None:
        frame["trajectory"] = [f"t{t}" for t in design.trajectory]
    return from_frame(frame), new


def losses(design: Design, noise: float, seed: int) -> tuple[Array, float]:
    """The losses [n] of that study, and the error of the new run."""
    rng = np.random.default_rng([seed, round(noise * 1e6), *design.name.encode()])
    error = rng.normal(size=len(design.params))
    if design.trajectory is not None:
        shared = rng.normal(size=int(design.trajectory.max()) + 1)[design.trajectory]
        error = math.sqrt(SHARED) * shared + math.sqrt(1 - SHARED) * error
    loss = design.law.predict(design.params, design.tokens) * np.exp(noise * error)
    return loss, noise * float(rng.normal())


def study(design: Design, noise: float, seed: int, *, bootstrap: int) -> tuple[list[bool], list[float]]:
    """Of one simulated study, by quantity: whether the interval held the truth, and its width."""
    table, error = simulate(design, noise, seed)
    fitted = fit(table, bootstrap=bootstrap, seed=seed)
    assert fitted.samples is not None
    law, budget = design.law, BEYOND * fitted.flops_max
    largest = int(np.argmax(flops_6nd(design.params, design.tokens)))
    params, tokens = (math.sqrt(BEYOND) * float(x[largest]) for x in (design.params, design.tokens))
    ends = [fitted.intervals[name] for name in ("L0", "A", "B", "alpha", "beta", "a")]
    best = fitted.samples.optimum(budget)
    predicted = fitted.predict(params, tokens)
    ends += [interval(best.params[:, 0]), interval(best.loss_nats[:, 0])]
    ends += [(side[0][0], side[1][0]) for side in (predicted.interval, predicted.new_run)]
    optimum, loss = law.optimum(budget), float(law.predict(params, tokens))
    truth = [law.L0, law.A, law.B, law.alpha, law.beta, law.exponents["a"]]
    truth += [float(optimum.params), float(optimum.loss_nats), loss, loss * math.exp(error)]
    covered = [bool(low <= value <= high) for (low, high), value in zip(ends, truth, strict=True)]
    widths = [
        float(high / low - 1 if name in RATIOS else high - low)
        for name, (low, high) in zip(QUANTITIES, ends, strict=True)
    ]
    return covered, widths


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A design at a noise: covered [studies, quantities] of 0 and 1, widths [studies, quantities]."""

    design: str
    noise: float
    covered: Array
    widths: Array

    @property
    def coverage(self) -> Array:
        return self.covered.mean(axis=0)


def cell(design: Design, noise: float, *, seeds: Sequence[int], bootstrap: int = 199) -> Cell:
    """Simulate one study a seed."""
    studies = [study(design, noise, seed, bootstrap=bootstrap) for seed in seeds]
    covered, widths = (np.array([s[k] for s in studies], np.float64) for k in (0, 1))
    return Cell(design=design.name, noise=noise, covered=covered, widths=widths)


def pooled(cells: Sequence[Cell]) -> dict[str, float]:
    """Coverage of each group of quantities over all cells, which count alike."""
    each = np.array([c.coverage for c in cells])
    return {group: float(each[:, [QUANTITIES.index(name) for name in names]].mean()) for group, names in GROUPS.items()}


def failures(cells: Sequence[Cell]) -> list[str]:
    """What is not good enough: a group outside POOLED, a quantity of a cell below LEAST."""
    wrong = [
        f"{group}: pooled coverage {100 * share:.1f} %, outside {100 * POOLED[0]:.0f} to {100 * POOLED[1]:.0f} %"
        for group, share in pooled(cells).items()
        if not POOLED[0] <= share <= POOLED[1]
    ]
    for c in cells:
        for name, share in zip(QUANTITIES, c.coverage, strict=True):
            if share < LEAST:
                wrong.append(f"{c.design}, noise {c.noise:g}: {name} is covered in {100 * share:.1f} % only")
    return wrong


def report(cells: Sequence[Cell]) -> str:
    """Coverage in per cent and, below it, the median width of every quantity; then what is pooled and the worst."""
    head = f"{'design':14s} {'noise':>6s} {'studies':>7s}  " + "  ".join(f"{name:>17s}" for name in QUANTITIES)
    lines = [head, "-" * len(head)]
    for c in cells:
        line = f"{c.design:14s} {100 * c.noise:4.1f} % {len(c.covered):7d}  "
        lines.append(line + "  ".join(f"{100 * share:17.1f}" for share in c.coverage))
        widths = np.median(c.widths, axis=0)
        lines.append(" " * 31 + "  ".join(f"{_width(n, w):>17s}" for n, w in zip(QUANTITIES, widths, strict=True)))
    lines += ["", "coverage in per cent; below it the median width of the interval, as a factor where marked x"]
    lines += [f"pooled {group}: {100 * share:.1f} %" for group, share in pooled(cells).items()]
    each = [(float(share), name, c) for c in cells for share, name in zip(c.coverage, QUANTITIES, strict=True)]
    share, name, worst = min(each, key=lambda entry: entry[0])
    lines.append(f"least: {100 * share:.1f} % for {name} of {worst.design} at noise {100 * worst.noise:.1f} %")
    return "\n".join(lines)


def _width(name: str, width: float) -> str:
    return f"x {1 + width:.4g}" if name in RATIOS else f"{width:.3g}"


def run(file: Path, *, studies: int, bootstrap: int, jobs: int, names: Sequence[str]) -> list[Cell]:
    """Simulate what `file` (CSV, a line a study) does not hold yet, append it, and read all of it back."""
    if file.is_file():
        text = file.read_text()
        file.write_text(text[: text.rfind("\n") + 1])  # an interruption may have cut the last line short
    todo = missing(_stored(file), studies, names)
    total, finished, begun = sum(len(seeds) for *_, seeds in todo), 0, time.monotonic()
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", newline="") as stream, ProcessPoolExecutor(jobs) as pool:
        writer = csv.writer(stream)
        given = {
            pool.submit(_batch, name, noise, seeds, bootstrap): (name, noise, seeds) for name, noise, seeds in todo
        }
        for future in as_completed(given):
            name, noise, seeds = given[future]
            result = future.result()
            for seed, covered, widths in zip(seeds, result.covered, result.widths, strict=True):
                writer.writerow([name, noise, seed, *covered.astype(int), *(f"{w:.6g}" for w in widths)])
            stream.flush()
            finished += len(seeds)
            left = (time.monotonic() - begun) * (total - finished) / finished / 60
            print(f"\r{finished} of {total} studies, {left:.0f} minutes left ", end="", file=sys.stderr, flush=True)
    if total:
        print(file=sys.stderr)
    return list(_cells(_stored(file), studies, names))


def missing(
    stored: Mapping[tuple[str, float], Mapping[int, list[float]]], studies: int, names: Sequence[str]
) -> list[tuple[str, float, list[int]]]:
    """Design, noise and seeds of every batch not stored yet. Cells take turns: interrupted, they are even."""
    batches = []
    for first in range(0, studies, BATCH):
        for name, noise in product(names, NOISES):
            done = stored.get((name, noise), {})
            seeds = [seed for seed in range(first, min(first + BATCH, studies)) if seed not in done]
            if seeds:
                batches.append((name, noise, seeds))
    return batches


def _batch(name: str, noise: float, seeds: Sequence[int], bootstrap: int) -> Cell:
    return cell(DESIGNS[name], noise, seeds=seeds, bootstrap=bootstrap)


def _stored(file: Path) -> dict[tuple[str, float], dict[int, list[float]]]:
    """By design and noise, then by seed: the numbers of a study."""
    stored: dict[tuple[str, float], dict[int, list[float]]] = {}
    if file.is_file():
        with file.open(newline="") as stream:
            for line in csv.reader(stream):
                stored.setdefault((line[0], float(line[1])), {})[int(line[2])] = [float(x) for x in line[3:]]
    return stored


def _cells(
    stored: Mapping[tuple[str, float], dict[int, list[float]]], studies: int, names: Sequence[str]
) -> Iterator[Cell]:
    for name in names:
        for noise in NOISES:
            found = stored[(name, noise)]
            values = np.array([found[seed] for seed in range(studies)])
            half = len(QUANTITIES)
            yield Cell(design=name, noise=noise, covered=values[:, :half], widths=values[:, half:])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.coverage", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", type=int, default=2000, help="simulated for each design and noise (default 2000)")
    parser.add_argument("--bootstrap", type=int, default=199, help="resamples of each study (default 199)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default 2)")
    parser.add_argument(
        "--designs", nargs="+", choices=[*DESIGNS], default=[*DESIGNS], metavar="NAME", help=", ".join(DESIGNS)
    )
    parser.add_argument("--file", type=Path, default=Path("results/coverage.csv"), help="results, kept and resumed")
    given = parser.parse_args(arguments)
    cells = run(given.file, studies=given.studies, bootstrap=given.bootstrap, jobs=given.jobs, names=given.designs)
    print(report(cells))
    wrong = failures(cells)
    print("\n".join(wrong) if wrong else "every group pooled and every cell is within what is asked")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
