"""Eight CPU devices and a cache of programs for every test, set before anything imports jax; the published tables; what
becomes of tests whose engine (Ray, Slurm) is not here.

LMSCALE_ALLOW_SKIP names the engines, with commas between, whose tests may be skipped; those of others fail. Where it is
unset, as it is outside .ci/run, all may be. What is skipped is said at the end, as is a file whose peers (the extra of
that name, gigabytes) are not here.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import settings

ALLOW_SKIP = "LMSCALE_ALLOW_SKIP"
ALOUD = ("Skipped: engine ", "Skipped: peers: ")  # reasons that are said at the end

# the same examples in every run; `pytest --hypothesis-profile default` draws others, which found things of its own
settings.register_profile("same", derandomize=True)
settings.load_profile("same")

os.environ["JAX_PLATFORMS"] = "cpu"
# LLVM takes longer to optimise the tests' programs than they run; XLA's own passes are those of every day
FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] = f"{FLAGS} {os.environ.get('XLA_FLAGS', '')}".strip()  # the last one said holds
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# the programs that tests and their processes compile are kept for each other, and not in the user's cache
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="lmscale-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
    # most are small, and the same in many files
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


@pytest.fixture
def reference() -> Path:
    folder = os.environ.get("LMSCALE_REFERENCE_DATA")
    if not folder:
        pytest.skip("LMSCALE_REFERENCE_DATA is unset: no reference tables to compare with")
    return Path(folder) / "runs"


@pytest.fixture(scope="session")
def without_engine() -> Callable[[str, str], NoReturn]:
    """without_engine(name, why): skips the tests that need an engine that cannot be had, or fails them."""

    def without(name: str, why: str) -> NoReturn:
        allowed = os.environ.get(ALLOW_SKIP)
        if allowed is None or name in [word.strip() for word in allowed.split(",")]:
            pytest.skip(f"engine {name}: {why}")
        pytest.fail(f"engine {name}: {why}; {ALLOW_SKIP}={name} would let its tests be skipped", pytrace=False)

    return without


# longest first, of the files that take more than half a minute: on several cores the last of them ends alone
LONG = ("distributed", "faults", "storage", "slurm", "ray", "memory", "cli", "desk", "families", "meshes", "step")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of the tests of training in the order of LONG before all others; within a file nothing moves."""
    places = {f"tests/lmscale/test_{name}.py": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(LONG)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons = [r.longrepr[2] for r in terminalreporter.stats.get("skipped", []) if isinstance(r.longrepr, tuple)]
    aloud = [reason.removeprefix("Skipped: ") for reason in reasons if reason.startswith(ALOUD)]
    for line in sorted(set(aloud)):
        terminalreporter.write_line(f"SKIPPED {aloud.count(line)} tests, {line}", yellow=True)
