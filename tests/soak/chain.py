"""What theory says of the known-entropy study: which law its losses should follow, and what each width can learn.

    python tests/soak/chain.py [--widths 8 16 32 64]

1. Losses on paper: a model of width w writes the w - 1 largest singular values s_k of the logits, and of a direction
that is written s^2 n / (s^2 + n) is lost, n = V / (efficiency D) (ridge regression with the best penalty). Each law is
fitted to them for the study's sizes and counts; printed are its error in L0 and its largest residual.
2. The best softmax of rank w - 1 for the chain itself, by L-BFGS on the population's cross-entropy: the excess over the
entropy with endless text, beside that of the matrix cut off by its singular values. A minute or two.
"""

import argparse

import numpy as np
import pandas as pd
from scipy.optimize import minimize

import analysis
from lmscale.config import Chain
from lmscale.data import chain
from lmscale.study.studies import load_study

EFFICIENCIES = 0.1, 0.3  # of a token, against the best estimator
LAWS = "chinchilla", "interaction", "coupled"
ITERATIONS = 150


def on_paper(source: Chain, widths: list[int], counts: tuple[int, ...], efficiency: float) -> pd.DataFrame:
    squares, rows = chain.spectrum(source) ** 2, []
    for width in widths:
        for tokens in counts:
            noise = source.states / (efficiency * tokens)
            written, left = squares[: width - 1], squares[width - 1 :]
            excess = (left.sum() + (written * noise / (written + noise)).sum()) / 2
            params = 2 * (source.states + chain.FIRST_STATE) * width + 12 * width**2
            rows.append({"params": params, "tokens": tokens, "loss_nats": chain.entropy_nats(source) + excess})
    return pd.DataFrame(rows)


def best_softmax(source: Chain, rank: int) -> tuple[float, float]:
    """Excess in nats of logits of that rank: of the singular values cut off, and the least that was found."""
    law, (states, _) = chain.law(source), chain.stationary(source)
    left, values, right = np.linalg.svd(chain.modes(source))
    weights = (states * (1 - law.q))[:, None]
    joint = (weights * law.following).astype(np.float32)
    entropy = -float((joint * np.log(law.following)).sum(dtype=np.float64))
    root, count = np.sqrt(values[:rank]), source.states * rank

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        a, c = (part.reshape(source.states, rank) for part in np.split(x[: 2 * count].astype(np.float32), 2))
        logits = a @ c.T + x[2 * count :].astype(np.float32)
        logits -= logits.max(axis=1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        slope = np.exp(logits) * weights.astype(np.float32) - joint
        excess = -float((joint * logits).sum(dtype=np.float64)) - entropy
        gradient = np.concatenate([(slope @ c).ravel(), (slope.T @ a).ravel(), slope.sum(axis=0)])
        return excess * source.states, gradient.astype(np.float64) * source.states

    start = np.concatenate([(left[:, :rank] * root).ravel(), (right[:rank].T * root).ravel(), chain.biases(source)])
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS})
    return objective(start)[0] / source.states, found.fun / source.states


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[8, 16, 32, 64])
    widths, study = parser.parse_args().widths, load_study("known_entropy")
    source = study.corpus.chain
    for efficiency in EFFICIENCIES:
        table = analysis.from_frame(on_paper(source, [size.width for size in study.sizes], study.tokens, efficiency))
        for law in LAWS:
            fitted = analysis.fit(table, law, bootstrap=0)
            error, largest = (
                float(fitted.law.parameters["L0"]) - chain.entropy_nats(source),
                abs(fitted.residuals).max(),
            )
            print(f"on paper, efficiency {efficiency}: {law:12} L0 {error:+.3f} nats, largest residual {largest:.2%}")
    for width in widths:
        cut, best = best_softmax(source, width - 1)
        print(f"width {width}: {cut:.3f} nats above the entropy by the singular values, {best:.3f} at best", flush=True)


if __name__ == "__main__":
    main()
