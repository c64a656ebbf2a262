"""Every command of Documentation/cluster.md is run, on small CTs, as are its manifests by Kubernetes' schema.

Servers (``dask scheduler``, ``dask worker``) run while the command after them does. The command for SLURM runs where
SLURM is installed; see tools/test_one_node_slurm.py, which compares its results.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from batch_results import hidden, summary
from command_line import process_environment, small_ct
from LesionDecompLib.io.readers import write_image
from LesionDecompLib.report.case import REPORT
from repository import ROOT

PAGE = ROOT / "Documentation" / "cluster.md"
MANIFESTS = ROOT / "Documentation" / "kubernetes" / "lesiondecomp.yaml"
PROGRAMS = {
    "lesiondecomp": [sys.executable, "-m", "LesionDecompLib"],
    "dask scheduler": [sys.executable, "-m", "distributed.cli.dask_scheduler"],
    "dask worker": [sys.executable, "-m", "distributed.cli.dask_worker"],
}
ELSEWHERE = ("pip install", "python Examples/slurm_batch.py")
CERTIFICATE = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -keyout node.key -out node.pem"


def blocks() -> list[str]:
    """The page's blocks of commands."""
    return re.findall(r"^```sh\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[str]:
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in block.splitlines())
    return [line for line in lines if line]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with two small studies, where the commands run."""
    folder = tmp_path_factory.mktemp("cluster")
    *_, volume = small_ct(folder)
    (folder / "STUDIES").mkdir()
    for number in range(2):
        write_image(folder / "STUDIES" / f"ct{number}.nrrd", volume.array + np.int16(number), volume)
    (folder / "home").mkdir()
    return folder


@pytest.fixture
def servers() -> Iterator[list[subprocess.Popen]]:
    """Processes that are ended with the test, the last first."""
    started: list[subprocess.Popen] = []
    yield started
    for process in reversed(started):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="as printed, the commands are a POSIX shell's")
@pytest.mark.parametrize("block", [block for block in blocks() if not block.startswith(ELSEWHERE)])
def test_the_commands_run_as_printed(block, place, servers):
    environment = process_environment(place / "home")
    if "TLS" in block:
        if shutil.which("openssl") is None:
            pytest.skip("makes its certificate with openssl")
        subprocess.run(CERTIFICATE.split(), cwd=place, check=True, capture_output=True)
        shutil.copy(place / "node.pem", place / "ca.pem")
    for command in commands(block):
        if command.startswith("export "):
            environment |= dict(part.split("=", 1) for part in shlex.split(command)[1:])
            continue
        program = next(name for name in PROGRAMS if command.startswith(name + " "))
        arguments = shlex.split(command.removeprefix(program).replace("cuda:0,cuda:1", "cpu,cpu"))
        arguments = [free_port() if part == "8786" else part for part in arguments]
        words = [*PROGRAMS[program], *arguments]
        if program.startswith("dask"):
            servers.append(start_server(words, place, environment))
            continue
        words += ["--threads", "1"] if arguments[0] == "segment" else []
        done = subprocess.run(words, cwd=place, env=environment, capture_output=True, encoding="utf-8", timeout=400)
        assert done.returncode == 0, done.stderr
        if arguments[0] == "segment":
            out = place / arguments[arguments.index("-o") + 1]
            assert {status for status, _ in summary(out).values()} == {"done"}
            assert len(list(out.glob(f"*/{REPORT}"))) == 2 and not hidden(out)
    if "TLS" in block:
        assert '"tls://' in (place / "tls.json").read_text("utf-8")


def start_server(words: list[str], place: Path, environment: dict[str, str]) -> subprocess.Popen:
    """Start it; of a scheduler, wait for the file by which it is found."""
    files = [place / name for option, name in pairwise(words) if option == "--scheduler-file"]
    with open(place / "servers.log", "ab") as log:
        process = subprocess.Popen(words, cwd=place, env=environment, stdout=log, stderr=log, start_new_session=True)
    end = time.monotonic() + 120
    while not all(file.is_file() for file in files) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    assert process.poll() is None, (place / "servers.log").read_text("utf-8")[-3000:]
    return process


def free_port() -> str:
    """In place of a fixed one, which another program may have."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_what_is_not_run_here_is_run_elsewhere():
    left_out = [command for block in blocks() if block.startswith(ELSEWHERE) for command in commands(block)]
    assert [command.split(" -- ")[0].split(" --")[0] for command in left_out] == [
        "pip install '.[cluster]'",
        "pip install dask-jobqueue",
        "python Examples/slurm_batch.py",
    ]


@pytest.fixture
def manifests() -> list[dict]:
    return [manifest for manifest in yaml.safe_load_all(MANIFESTS.read_text("utf-8")) if manifest]


class TestKubernetes:
    def test_the_manifests_keep_to_kubernetes_schema(self, manifests):
        validator = pytest.importorskip("kubernetes_validate")
        kinds = [manifest["kind"] for manifest in manifests]
        assert kinds == ["PersistentVolumeClaim", "Service", "Deployment", "Deployment", "Job"]
        for manifest in manifests:
            validator.validate(manifest, "1.31", strict=True)

    def test_a_wrong_manifest_would_be_found(self, manifests):
        validator = pytest.importorskip("kubernetes_validate")
        with pytest.raises(validator.ValidationError):
            validator.validate({**manifests[2], "spec": {**manifests[2]["spec"], "replica": 1}}, "1.31", strict=True)

    def test_the_parts_find_each_other(self, manifests):
        by_name = {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in manifests}
        service = by_name["Service", "lesiondecomp-scheduler"]
        scheduler = by_name["Deployment", "lesiondecomp-scheduler"]["spec"]["template"]
        assert service["spec"]["selector"].items() <= scheduler["metadata"]["labels"].items()
        address = f"tcp://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
        users = [by_name["Deployment", "lesiondecomp-workers"], by_name["Job", "lesiondecomp-cohort"]]
        claim = by_name["PersistentVolumeClaim", "lesiondecomp-data"]
        assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
        for user in users:
            pod = user["spec"]["template"]["spec"]
            (container,) = pod["containers"]
            assert address in container["args"]
            assert container["image"] == scheduler["spec"]["containers"][0]["image"]
            assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
            assert container["volumeMounts"][0]["mountPath"] == "/data"

    def test_the_job_s_command_is_one_of_ours(self, manifests, capsys):
        from LesionDecompLib.cli import build_parser

        program, *arguments = manifests[-1]["spec"]["template"]["spec"]["containers"][0]["args"]
        assert program == "lesiondecomp"
        assert build_parser().parse_args(arguments).scheduler == "tcp://lesiondecomp-scheduler:8786"
