"""Eight CPU devices for every test, set before anything imports jax; where the published tables are."""

import os
from pathlib import Path

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture
def reference() -> Path:
    folder = os.environ.get("LMSCALE_REFERENCE_DATA")
    if not folder:
        pytest.skip("LMSCALE_REFERENCE_DATA is unset: no reference tables to compare with")
    return Path(folder) / "runs"
