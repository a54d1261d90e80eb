"""The launch recipes parse, and the commands in them are commands of this version."""

import math
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from lmscale.cli import make_parser
from lmscale.config import MeshConfig, Size, Study
from lmscale.executors.local import TPU_BOUNDS, Accelerators
from lmscale.study.studies import override

FOLDER = Path(__file__).parents[2] / "docs" / "launch"
SCRIPTS = sorted(FOLDER.glob("*.sh"))
COMMAND = re.compile(r"lmscale (sweep|run|aot) [^\n;&`'#]*")


def known(words: list[str]) -> None:
    """Raises InputError where this version does not know a command or its options."""
    args, rest = make_parser().parse_known_args([word for word in words if word != "..."])
    assert args.command == words[0]
    override(Study(name="any", sizes=(Size(width=64),), tokens=(10**6,)), rest)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound_bash(script):
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("file", [*SCRIPTS, FOLDER / "gke.yaml"], ids=lambda path: path.name)
def test_their_commands_are_known(file):
    commands = [match[0].strip().rstrip('"').strip() for match in COMMAND.finditer(file.read_text())]
    assert commands
    for command in commands:
        words = [word.replace("$BUCKET/", "").replace("gs://BUCKET/", "") for word in shlex.split(command)]
        known(words[1:])


def test_the_job_of_gke_takes_every_chip_of_its_slice_once():
    yaml = pytest.importorskip("yaml")
    service, job = yaml.safe_load_all((FOLDER / "gke.yaml").read_text())
    assert (service["kind"], job["kind"]) == ("Service", "Job")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    chips = int(container["resources"]["limits"]["google.com/tpu"])
    assert job["spec"]["completions"] == job["spec"]["parallelism"]
    assert job["spec"]["completions"] * chips == math.prod(map(int, topology.split("x")))
    assert pod["subdomain"] == service["metadata"]["name"]
    command = container["command"]
    known([word.replace("gs://BUCKET/", "") for word in command[1:]])
    mesh = MeshConfig.from_text(command[command.index("--mesh") + 1])
    # a host deals its chips out to workers of this mesh, no chip twice
    host = Accelerators(kind="tpu", names=tuple(map(str, range(chips))))
    assert mesh.devices in TPU_BOUNDS
    assert host.splits(mesh.devices)
    seen = [host.variables(first, mesh.devices)["TPU_VISIBLE_CHIPS"] for first in range(0, chips, mesh.devices)]
    assert sorted(seen) == list(host.names)
