"""What a report of 1,000 runs takes: seconds to make, part by part, megabytes, seconds until a browser can be used.

    OMP_NUM_THREADS=1 python tests/bench/report.py [--bootstrap K] [--chromium PATH]

The whole command is a process of its own: imports, reading, the fit with its resamples, the answer, the backtest, the
page. Then the parts, within this process; the page alone is what a ready analysis takes. In the browser the time runs
from the start of navigation until the first figure answers, and until the last one does.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

import analysis
from analysis.curves import from_table
from analysis.laws import Chinchilla
from analysis.page.report_page import page
from analysis.report import report

LAW = Chinchilla(A=482.01, B=2085.43, L0=1.8172, alpha=0.3478, beta=0.3658)  # Besiroglu et al. 2024, abstract
OPENINGS = 5


def made_table(path: Path) -> Path:
    """25 sizes x 40 token counts with errors of 0.3 %."""
    rng = np.random.default_rng(0)
    n, d = (values.ravel() for values in np.meshgrid(np.geomspace(1e6, 1e9, 25), np.geomspace(1e8, 1e11, 40)))
    loss = LAW.predict(n, d) * np.exp(0.003 * rng.normal(size=n.size))
    pd.DataFrame({"params": n, "tokens": d, "loss_nats": loss, "seed": 0}).to_csv(path, index=False)
    return path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", type=int, default=1000)
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs, file = made_table(Path(folder) / "runs.csv"), Path(folder) / "report.html"
        command = [sys.executable, "-m", "lmscale.cli", "report", runs, "-o", file, "--bootstrap", str(args.bootstrap)]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        print(f"1,000 runs, {args.bootstrap} resamples: whole command {time.perf_counter() - start:.2f} s, "
              f"{file.stat().st_size / 1e6:.2f} MB")  # fmt: skip
        times = [time.perf_counter()]
        table = analysis.read(runs)
        times.append(time.perf_counter())
        fitted = analysis.fit(table, bootstrap=args.bootstrap)
        times.append(time.perf_counter())
        made = report(fitted, title="bench", source="runs.csv", made=date.today(), curves=from_table(table))
        times.append(time.perf_counter())
        page(made)
        times.append(time.perf_counter())
        parts = zip(("reading", "the fit", "answer and backtest", "the page"), np.diff(times), strict=True)
        print("  " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in parts))
        if args.chromium is None:
            print("no chromium here: not opened in a browser")
            return
        first, last = zip(*openings(file, args.chromium), strict=True)
        print(f"in Chromium, median (least, most) of {OPENINGS}: the first figure after "
              f"{statistics.median(first):.2f} s ({min(first):.2f}, {max(first):.2f}), all after "
              f"{statistics.median(last):.2f} s ({min(last):.2f}, {max(last):.2f})")  # fmt: skip


def openings(file: Path, chromium: str) -> list[tuple[float, float]]:
    """Seconds from navigation to the first and to the last figure, each time in a new page."""
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=chromium, args=["--no-sandbox"], timeout=120_000)
        for _ in range(OPENINGS):
            opened = browser.new_page(viewport={"width": 1400, "height": 900})
            opened.goto(file.as_uri(), timeout=120_000)
            opened.wait_for_function("document.documentElement.dataset.drawn", timeout=120_000)
            first, last = opened.evaluate("['first', 'drawn'].map(k => Number(document.documentElement.dataset[k]))")
            found.append((first / 1000, last / 1000))
            opened.close()
        browser.close()
    return found


if __name__ == "__main__":
    main()
