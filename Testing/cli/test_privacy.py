"""Nothing about the patient and no path leaves with the results, and no connection is made."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from command_line import process_environment, small_ct, small_models
from dicom_files import SECRET_ID, SECRET_NAME, copy_slice, series_files
from LesionDecompLib.io.masks import read_lungs
from LesionDecompLib.io.readers import write_image

pytestmark = pytest.mark.slow

PLANTED = {
    "g0010e0030": "19470309",  # birth date
    "g0008e0050": "ACC-551177",  # accession number
    "g0008e0080": "Sankt Quirin Klinik",  # institution
    "g0008e0090": "Dr. Pfannenstiel",  # referring physician
    "g0010e4000": "met at Wolkersdorf",  # patient comments
    "g0020e4000": "compare with Obernberg",  # image comments
    "g0020e000d": "1.2.840.99999.7001",  # study instance UID
    "g0020e000e": "1.2.840.99999.7002",  # series instance UID
}
# Runs in the process under test before anything else does; every attempt is written down, and refused.
GUARD = """
import os, sys

FORBIDDEN = ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
             "socket.gethostbyname", "urllib.Request", "http.client.connect", "ftplib.connect", "smtplib.connect")

def guard(event, arguments):
    if event in FORBIDDEN:
        with open(os.environ["NETWORK_ATTEMPTS"], "a") as file:
            file.write(event + "\\n")
        raise PermissionError("no network")

sys.addaudithook(guard)
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """A run with all outputs (but DICOM SEG, which is asked for to carry the patient) on a folder full of identity."""
    pytest.importorskip("slicer", reason="needs slicer-core")
    folder = tmp_path_factory.mktemp("Grossauer")
    home = folder / "home-of-Leopoldine"
    small_models(home / ".lesiondecomp" / "models")
    series = folder / f"{SECRET_NAME.replace('^', ' ')} {SECRET_ID}"
    series.mkdir()
    for path in series_files()[30:42]:
        copy_slice(path, series / path.name, **PLANTED)
    shutil.copyfile(series / series_files()[33].name, series / f"{SECRET_NAME} again.dcm")
    beside = {**PLANTED, "g0020e0032": "900\\900\\900", "g0008e0018": "1.2.840.99999.7003"}
    copy_slice(series_files()[35], series / f"{SECRET_NAME} beside.dcm", **beside)
    mask, regions = masks_beyond_the_ct(folder)
    (folder / "guard").mkdir()
    (folder / "guard" / "sitecustomize.py").write_text(GUARD)
    environment = process_environment(home)
    environment["PYTHONPATH"] = f"{folder / 'guard'}:{environment['PYTHONPATH']}".replace(
        ":", ";" if sys.platform == "win32" else ":"
    )
    environment["NETWORK_ATTEMPTS"] = str(folder / "attempts")
    model = home / ".lesiondecomp" / "models" / "untrained-lesions"
    command = [sys.executable, "-m", "LesionDecompLib", "segment", series, "--lung-mask", mask, "--model", model]
    command += ["--regions", regions, "-o", folder / "out", "--overview", "--scene", "--report", "--device", "cpu"]
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr.decode()
    probe = "import socket\ntry: socket.create_connection(('127.0.0.1', 9))\nexcept PermissionError: print('refused')"
    probe_environment = {**environment, "NETWORK_ATTEMPTS": str(folder / "probed")}
    probed = subprocess.run([sys.executable, "-c", probe], env=probe_environment, capture_output=True, check=True)
    assert probed.stdout.strip() == b"refused"
    return folder, done


def masks_beyond_the_ct(folder: Path) -> tuple[Path, Path]:
    """A lung mask and regions called after the patient, with a slice more than the CT."""
    _, mask, ct = small_ct(folder)
    lungs = read_lungs(mask, ct).array
    larger = np.concatenate([lungs, lungs[-1:]])
    paths = tuple(folder / f"{SECRET_NAME} {what}.nrrd" for what in ("lungs", "lobes"))
    for path in paths:
        write_image(path, larger, ct.ijk_to_ras)
    return paths


def layers(data: bytes, depth: int = 0):
    """The bytes of a file and of everything packed into it: archives, compressed streams, embedded pictures."""
    yield data
    if depth > 4:
        return
    if data[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for item in archive.infolist():
                yield item.filename.encode()
                yield from layers(archive.read(item), depth + 1)
        return
    for start in [match.start() for match in re.finditer(rb"\x1f\x8b\x08", data)][:20]:
        try:
            yield from layers(zlib.decompressobj(wbits=31).decompress(data[start:]), depth + 1)
        except zlib.error:
            continue
    for packed in re.findall(rb"base64,([A-Za-z0-9+/=]{20,})", data):
        yield from layers(base64.b64decode(packed), depth + 1)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        kinds, at = set(), 8
        while at + 8 <= len(data):
            kinds.add(data[at + 4 : at + 8])
            at += 12 + int.from_bytes(data[at : at + 4], "big")
        assert not kinds & {b"tEXt", b"zTXt", b"iTXt", b"eXIf"}, "a picture with text of its own"


def secrets(folder: Path) -> list[str]:
    names = [*SECRET_NAME.split("^"), SECRET_ID, "Grossauer", "Leopoldine", str(folder)]
    return names + [value.split(" ")[-1] if "." not in value[:2] else value for value in PLANTED.values()]


def test_no_byte_of_any_output_reports_who_the_patient_is_or_where_the_files_lay(outcome):
    folder, done = outcome
    files = sorted(path for path in (folder / "out").rglob("*") if path.is_file())
    assert {path.name for path in files} >= {
        "report.json",
        "report.html",
        "scene.mrb",
        "overview.png",
        "statistics.csv",
        "regions.csv",
    }
    reported = {"output on the terminal": [done.stdout + done.stderr]}
    reported |= {path.name: list(layers(path.read_bytes())) for path in files}
    assert len(reported["scene.mrb"]) > 10 and any(b"<MRML" in part for part in reported["scene.mrb"])
    assert any(len(part) > 12 * 64 * 64 * 4 - 1 for part in reported["heatmap.nrrd"]), "the heat was not unpacked"
    found = [
        (name, secret)
        for name, parts in reported.items()
        for secret in secrets(folder)
        for code in ("utf-8", "utf-16-le", "utf-16-be")
        if any(secret.lower().encode(code) in part.lower() for part in parts)
    ]
    assert not found


def test_the_warnings_that_would_name_files_are_there(outcome):
    folder, _ = outcome
    report = json.loads((folder / "out" / "report.json").read_text("utf-8"))
    codes = [warning["code"] for warning in report["warning_codes"]]
    assert {"duplicate_slices", "odd_images"} <= set(codes) and codes.count("mask_beyond_ct") == 2
    assert {text for text in report["warnings"] if "beyond the CT" in text} == {
        warning["text"] for warning in report["warning_codes"] if warning["code"] == "mask_beyond_ct"
    }


def test_the_planted_identity_is_there_to_be_found(outcome):
    folder, _ = outcome
    data = b"".join(path.read_bytes() for path in folder.glob("Zyzz*/*")) + str(folder).encode()
    data += str(folder / "home-of-Leopoldine").encode()
    assert [secret for secret in secrets(folder) if secret.encode() not in data] == []


def test_no_connection_is_tried(outcome):
    folder, _ = outcome
    attempts = folder / "attempts"
    assert not attempts.exists(), attempts.read_text()
