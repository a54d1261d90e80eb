"""Cleaning of text before it is prepared, every step counted; and what training text shares with evaluation sets.

`settings` says what is asked (it alone is imported by lmscale.config, and imports no library), `pipeline` does it,
`ledger` counts it. One room a step: `encoding`, `language`, `lines`, `quality`, `repetition`, `toxicity`, `personal`
look at a document alone; `duplicates` and `near` at all of them in order. `contamination` compares two sets of
documents, with the index of `grams`; `prepared` reads them back from shards.
Imports neither jax nor TensorFlow.
"""
