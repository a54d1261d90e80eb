"""Weights & Biases, where a study asks for it: a run there for each trunk and each cooldown, under our ids."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.errors import InputError


class WandbRun:
    """One curve. Opened again under its id it goes on; steps that it already has are passed over there."""

    def __init__(self, folder: Path, *, project: str, run_id: str, group: str, kind: str, config: Mapping[str, Any]):
        import wandb
        from wandb.errors import Error

        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._run = wandb.init(
                project=project,
                id=run_id,
                name=run_id,
                group=group,
                job_type=kind,
                config=dict(config),
                dir=folder,
                resume="allow",
                reinit="create_new",  # a trunk stays open while its cooldowns are trained
                # standard output is the line to the sweep
                settings=wandb.Settings(console="off", silent=True),
            )
        except Error as error:
            raise InputError(
                f"telemetry: 'wandb' cannot start ({' '.join(str(error).split())}); run 'wandb login', set "
                "WANDB_MODE=offline, or leave it out"
            ) from None

    def write(self, step: int, values: Mapping[str, float], *, first: int) -> None:
        """Adds the scalars of `step`."""
        self._run.log(dict(values), step=step)

    def summarise(self, step: int, values: Mapping[str, float]) -> None:
        """Adds the scalars of a finished run: to its summary, for a run that is opened again has gone past the step."""
        self._run.summary.update({**values, "steps": step})

    def close(self) -> None:
        self._run.finish()
