"""A study with planted abilities, as its files: runs.csv and scores.csv in a folder, and what is true of it."""

from pathlib import Path

import numpy as np
import pandas as pd

from analysis.laws import Chinchilla
from analysis.solving.proportions import wilson

LAW = Chinchilla(A=30.0, B=4e3, L0=1.1, alpha=0.4, beta=0.6)  # losses of 1.8 to 3.2
SIZES = (2e4, 5e4, 1.1e5, 2.3e5, 4.7e5)
TOKENS = (5e5, 1e6, 2e6, 4e6)
ITEMS = 500
LABELLED = (8, 32, 128, 512)
CROSSING = 60.0  # labelled examples at which the planted fine-tuned accuracy passes the best prompt
FEW_SHOT = {0: 0.30, 2: 0.40, 4: 0.45}


def sigmoid(loss, *, top=0.9, slope=4.0, middle=2.2, chance=0.25):
    return chance + (top - chance) / (1 + np.exp(slope * (loss - middle)))


def shape(task: str, loss: np.ndarray) -> np.ndarray:
    """Accuracy of each planted task at a loss; guessing gets 0.25."""
    z = (loss.max() - loss) / np.ptp(loss)  # 0 to 1 as models get better
    return {
        "lookup": sigmoid(loss),
        "guess": np.full(loss.shape, 0.25),
        "redefine": 0.75 - 0.4 * z,
        "unlearn": 0.35 + 1.4 * (z - 0.5) ** 2,
        "flat": np.full(loss.shape, 0.6),
    }[task]


TASKS = ("lookup", "guess", "redefine", "unlearn", "flat")


def planted_study(folder: Path, *, tuned: bool = False, seed: int = 0, seeds: int = 2) -> Path:
    """Write runs.csv and scores.csv; with `tuned` also prompts of `lookup`, and runs fine-tuned on LABELLED of it."""
    rng = np.random.default_rng(seed)
    runs, scores = [], []

    def said(run: str, task: str, metric: str, value: float, stderr: float | None = None, part: str = "") -> None:
        scores.append({"run_id": run, "task": task, "metric": metric, "value": value, "stderr": stderr,
                       "eval_set": f"{task}-{ITEMS}", "slice": part})  # fmt: skip

    def scored(run: str, task: str, share: float, part: str = "") -> None:
        hits = int(rng.binomial(ITEMS, share))
        low, high = wilson(hits, ITEMS)
        right = 0.8 * share + 0.1  # a smooth function of ability
        for metric, value, stderr in (
            ("accuracy", hits / ITEMS, float(np.sqrt(hits / ITEMS * (1 - hits / ITEMS) / ITEMS))),
            ("accuracy_low", low, None),
            ("accuracy_high", high, None),
            ("exact_match", hits / ITEMS * 0.9, 0.02),
            ("token_edit_distance", 1 - hits / ITEMS * 0.9, 0.02),
            ("log_prob", float(np.log(right) + 0.02 * rng.normal()), 0.02),
            ("correct_prob", float(np.clip(right + 0.01 * rng.normal(), 0, 1)), 0.01),
            ("brier", float(1.3 * (1 - right)), 0.02),
            ("chance", 0.25, None),
            ("items", ITEMS, None),
        ):
            said(run, task, metric, value, stderr, part)

    def add(run: str, family: str, n: float, d: float, loss: float, start: str = "") -> None:
        runs.append({"run_id": run, "trajectory": run.rpartition("-")[0], "family": family, "params": n, "tokens": d,
                     "loss_nats": loss, "seed": 0, "status": "done", "start": start,
                     "corpus": f"text-{start and run}"})  # fmt: skip

    truth = np.array([float(LAW.predict(n, d)) for n in SIZES for d in TOKENS])
    by_task = {task: shape(task, truth) for task in TASKS}
    for i, (n, d) in enumerate((n, d) for n in SIZES for d in TOKENS):
        for s in range(seeds):
            run = f"decoder-{n:.0f}-s{s}-t{d:.0f}"
            add(run, "decoder", n, d, truth[i] * float(np.exp(0.004 * rng.normal())))
            for task in TASKS:
                scored(run, task, float(by_task[task][i]))
            if tuned and d == TOKENS[-1]:
                for k, share in FEW_SHOT.items():
                    if k:
                        scored(run, "lookup", share, f"shots={k}")
    if tuned:
        for row in [*runs]:
            if row["tokens"] != TOKENS[-1] or row["params"] not in SIZES[:3]:
                continue
            for count in LABELLED:  # straight in log labelled, through the best prompt at CROSSING
                run = f"tuned-{row['run_id']}-{count}"
                add(run, "decoder_finetuned", row["params"], 1e5, row["loss_nats"], row["run_id"])
                scored(run, "lookup", FEW_SHOT[4] + 0.08 * float(np.log2(count / CROSSING)))
                said(run, "lookup", "labelled", count)
        for row in scores:  # zero-shot accuracy of the plain runs of the largest token count is that of FEW_SHOT
            run, last = row["run_id"], f"t{TOKENS[-1]:.0f}"
            asked = (row["metric"], row["task"], row["slice"]) == ("accuracy", "lookup", "")
            if asked and run.startswith("decoder") and run.endswith(last):
                row["value"] = rng.binomial(ITEMS, FEW_SHOT[0]) / ITEMS
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(runs).to_csv(folder / "runs.csv", index=False)
    pd.DataFrame(scores).to_csv(folder / "scores.csv", index=False)
    return folder
