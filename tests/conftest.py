"""Eight CPU devices and a cache of programs for every test, set before anything imports jax; the published tables."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
# LLVM takes longer to optimise the tests' programs than they run; XLA's own passes are those of every day
FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] = f"{FLAGS} {os.environ.get('XLA_FLAGS', '')}".strip()  # the last one said holds
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# the programs that tests and their processes compile are kept for each other, and not in the user's cache
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="lmscale-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


@pytest.fixture
def reference() -> Path:
    folder = os.environ.get("LMSCALE_REFERENCE_DATA")
    if not folder:
        pytest.skip("LMSCALE_REFERENCE_DATA is unset: no reference tables to compare with")
    return Path(folder) / "runs"
