"""A source whose entropy rate is known: a Markov chain whose logits are a matrix with a power law of singular values.

From state i of V the chain goes to state j with probability (1 - q) softmax_j(b_j + theta_ij), and ends its document
with probability q = 1 / (document_tokens - 1); a document begins with softmax(b). b_j = -zipf ln(j + 1 + shift), and
theta is V sum_k s_k u_k v_k^T over random orthonormal vectors, s_k in proportion to max(k + 1, knee)^-spectrum, its
entries of the mean square `variance`. The end of a document is a token like any other, so a text is one chain: the
token before is all that can be known of the next one, in every window, and the entropy rate is sum_i pi_i H(P_i) with
the stationary law pi.

A model of width w writes logits of rank w at most, one of which goes to b and to the normalisation: the others can be
the w - 1 largest singular values, and what it then lacks is half the sum of s_k^2 beyond, a power of w with exponent
1 - 2 spectrum. Where D / V tokens tell of each state, those modes are worth learning that stand above the noise, s_k^2
> V / D: what a wide model lacks is a power of D with exponent (1 - 2 spectrum) / (2 spectrum) (Caponnetto & de Vito
2007, Found. Comput. Math. 7). Either limit shuts off what the other would, and so the two are coupled: among laws of
N and D it is analysis.rivals.Coupled that should hold. All states share the directions v_k. Imports no framework.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from lmscale.data.document import Document, Reading
from lmscale.data.permutation import uniform
from lmscale.study.corpora import Chain

FORMAT = 1  # raise it when the same settings give other text
END, FIRST_STATE = 1, 2  # token ids; 0 is padding, as in seqio
LEFT, RIGHT, LENGTHS, STEPS = range(4)  # streams of random numbers
BLOCK_DOCUMENTS = 1024  # drawn side by side
HALF = 2.0**-54  # numbers of [0, 1) are multiples of 2^-53: this keeps them off 0

Array = NDArray[np.float64]


class Law(NamedTuple):
    """Next states: of a document's first [V], and of each state's where the document goes on [V, V]. q ends it."""

    first: Array
    following: Array
    q: float


def spectrum(chain: Chain) -> Array:
    """s_k [V], k = 1 ... V: the squares add up to `variance`."""
    s = np.maximum(np.arange(2.0, chain.states + 2), chain.knee) ** -chain.spectrum
    return s * math.sqrt(chain.variance / math.fsum(s * s))


def biases(chain: Chain) -> Array:
    """b_j [V]."""
    return -chain.zipf * np.log(np.arange(chain.states) + 1.0 + chain.shift)


def modes(chain: Chain) -> Array:
    """theta [V, V]; its singular values are V s_k."""
    left, right = (_orthonormal(chain, stream) for stream in (LEFT, RIGHT))
    return chain.states * (left * spectrum(chain)) @ right.T


@lru_cache(maxsize=1)
def law(chain: Chain) -> Law:
    """The probabilities from which the text is drawn."""
    b = biases(chain)
    return Law(_softmax(b), _softmax(b + modes(chain)), 1 / (chain.document_tokens - 1))


def stationary(chain: Chain) -> tuple[Array, float]:
    """Shares of the tokens: of each state [V], and of ends. A document has 1 / q states on average, and an end.

    Of the states: p = (1 - q) p S + p_end first, a linear system, since all documents begin alike.
    """
    first, following, q = law(chain)
    end = q / (1 + q)
    states = np.linalg.solve(np.eye(chain.states) - (1 - q) * following.T, end * first)
    return np.asarray(states, np.float64), end


def entropy_nats(chain: Chain) -> float:
    """The entropy rate in nats a token."""
    (first, following, q), (states, end) = law(chain), stationary(chain)
    ends = -(q * math.log(q) + (1 - q) * math.log1p(-q)) if q < 1 else 0.0
    return math.fsum(states * (ends + (1 - q) * _entropy(following))) + end * float(_entropy(first))


def fingerprint(chain: Chain) -> str:
    """SHA-256 of the settings, from which all of the text follows."""
    return hashlib.sha256(json.dumps([FORMAT, asdict(chain)]).encode()).hexdigest()


def documents(chain: Chain, reading: Reading) -> Iterator[Document]:
    """The text, `chain.tokens` long: documents of token ids, each with its END (the last one is cut)."""
    number = 0
    while reading.done < 4 * chain.tokens:
        for tokens in _drawn(chain, number, reading.done // 4):
            tokens = tokens[: chain.tokens - reading.done // 4]
            if len(tokens) == 0:
                return
            tokens[-1] = END
            reading.done += 4 * len(tokens)
            yield Document(name=str(number), text=tokens.tobytes())
            number += 1


def _drawn(chain: Chain, number: int, start: int) -> list[NDArray]:
    """Documents `number` to `number + BLOCK_DOCUMENTS`, the first of which begins at token `start` of the text."""
    first, _, q = law(chain)
    chosen = uniform(np.arange(number, number + BLOCK_DOCUMENTS), seed=chain.seed, stream=LENGTHS)
    lengths = np.ones(BLOCK_DOCUMENTS, np.int64)  # in states: longer than n with probability (1 - q)^n
    if q < 1:
        lengths += (np.log1p(-chosen) / math.log1p(-q)).astype(np.int64)
    begins = np.cumsum(lengths + 1) - (lengths + 1)
    flat = np.full(int(begins[-1] + lengths[-1]) + 1, END, "<u4")
    cumulated, order = _cumulated(chain), np.argsort(-lengths, kind="stable")
    shortest = lengths[order]
    state = np.zeros(0, np.int64)
    for step in range(int(shortest[0])):
        going = int(np.searchsorted(-shortest, -step))  # documents that are longer than `step`
        at = begins[order[:going]] + step
        drawn = uniform((start + at).astype(np.uint64), seed=chain.seed, stream=STEPS)
        if step == 0:
            state = np.searchsorted(np.cumsum(first), drawn, side="right")
        else:  # row i holds the numbers of (i, i + 1]
            state = np.searchsorted(cumulated, state[:going] + drawn, side="right") - state[:going] * chain.states
        state = np.minimum(state, chain.states - 1)
        flat[at] = FIRST_STATE + state
    return np.split(flat, begins[1:])


@lru_cache(maxsize=1)
def _cumulated(chain: Chain) -> Array:
    """[V V]: the rows' cumulated probabilities one after the other, the row's number added."""
    rows = np.cumsum(law(chain).following, axis=1)
    return (rows + np.arange(chain.states)[:, None]).ravel()


def _orthonormal(chain: Chain, stream: int) -> Array:
    """[V, V]: V random vectors, as columns."""
    count = chain.states
    numbers = uniform(np.arange(count * count, dtype=np.uint64), seed=chain.seed, stream=stream)
    return np.linalg.qr(ndtri(numbers + HALF).reshape(count, count))[0]


def _softmax(logits: Array) -> Array:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _entropy(p: Array) -> Array:
    return -np.where(p > 0, p * np.log(np.maximum(p, 1e-300)), 0.0).sum(axis=-1)
