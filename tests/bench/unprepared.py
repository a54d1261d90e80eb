"""A trajectory on text that nobody prepared: what benches train on random tokens, or on bytes that they read."""

from typing import Any

from lmscale.config import Family, Objective
from lmscale.plan import Text, Trajectory
from lmscale.shapes import Shape
from lmscale.study.recipe import Hyperparameters


def unprepared(
    shape: Shape,
    hyperparameters: Hyperparameters,
    *,
    vocab: int,
    family: Family = "decoder",
    objective: Objective = "causal",
    **text: Any,
) -> Trajectory:
    """A trunk of open length. `vocab` is the text's, without what an objective adds; `text` is what a bench says more
    of it (fields of lmscale.plan.Text).
    """
    plain = {"corpus": "random", "tokenizer": "none", "train_tokens": 0, "bytes_per_token": 1.0, "digest": ""}
    return Trajectory(
        study="bench",
        family=family,
        objective=objective,
        shape=shape,
        hyperparameters=hyperparameters,
        seed=0,
        text=Text(vocab=vocab, eval_set="", headline="heldout", **{**plain, **text}),
        recipe="",
        horizon_steps=None,
    )
