"""Models over bytes, of every family, with random weights, that were never on a disk. One of a kind: its programs
are compiled once.
"""

from functools import cache
from pathlib import Path

import networks

from lmscale.asking.found_run import FoundRun
from lmscale.asking.reader import ByteReader
from lmscale.config import MeshConfig
from lmscale.inference import Model

SEPARATOR = 12  # a tab


@cache
def make_model(kind: str, *, depth: int = 1, positions: int = 0, mesh: MeshConfig | None = None) -> Model:
    reader = ByteReader()
    network, layout = networks.make_network(
        kind, depth=depth, positions=positions, mesh=mesh, vocab=reader.vocabulary.size, separator=SEPARATOR
    )
    run = FoundRun(
        run_id="made",
        folder=Path("made"),
        family=layout.family,
        objective=layout.objective,
        shape=network.shape,
        sequence=networks.SEQUENCE,
        documents_apart=True,
        tokenizer="bytes",
        vocab=reader.vocabulary.size,
        compute_dtype="float32",
        step=1,
        params=network.shape.params,
        tokens=1,
        loss_nats=1.0,
        record={},
    )
    return Model(run=run, engine=network, reader=reader, layout=layout)
