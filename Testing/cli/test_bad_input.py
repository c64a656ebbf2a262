"""Bad input ends with one sentence (stage, found, expected) and status 1; nothing is written, nothing is changed."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from command_line import process_environment, run_apart, run_here, small_ct, snapshot
from dicom_files import copy_slice, series_files
from LesionDecompLib.io.readers import write_image
from LesionDecompLib.models.weights import WEIGHTS_NAME, WEIGHTS_NAMES

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX only")


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "in"
    path.mkdir()
    return path


@pytest.fixture
def good(folder):
    """A CT that is fine, and its lung mask."""
    return small_ct(folder)[:2]


def refused(done, sentence: str) -> None:
    """One line on stderr, of the form 'stage: found ...; expected ...', that matches ``sentence``; status 1."""
    lines = [line for line in done.err.splitlines() if line]
    assert done.status == 1, done
    assert len(lines) == 1 and re.match(r"lesiondecomp: [A-Z][^:]*: found .*; expected .+\.$", lines[0]), done.err
    assert re.search(sentence, lines[0]), lines[0]
    assert "Traceback" not in done.err + done.out and done.out == ""


def refuse(capsys, folder: Path, sentence: str, *arguments: object) -> None:
    """Segment into ``folder``/out: refused with ``sentence``, and nothing in ``folder`` has changed."""
    before = snapshot(folder)
    done = run_here(capsys, "segment", *arguments, "-o", folder / "out", "--quiet")
    refused(done, sentence)
    assert snapshot(folder) == before


def chest(shape=(12, 64, 64), dtype=np.int16) -> np.ndarray:
    """A body with air around it and two lungs in it, HU."""
    _, y, x = np.indices(shape)
    hu = np.full(shape, -1000, dtype)
    hu[((y - 32) / 24) ** 2 + ((x - 32) / 30) ** 2 < 1] = 40
    for side in (18, 46):
        hu[((y - 32) / 14) ** 2 + ((x - side) / 10) ** 2 < 1] = -850
    return hu


def image(array: np.ndarray, spacing=(5.0, 5.0, 5.0), is_vector: bool = False) -> sitk.Image:
    made = sitk.GetImageFromArray(array, isVector=is_vector)
    made.SetSpacing(spacing[: made.GetDimension()])
    return made


class TestFiles:
    @pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz", "ct.nrrd", "ct.nhdr", "ct.mha", "ct.mhd", "ct.dcm", "ct"])
    def test_missing_empty_and_foreign(self, models, capsys, folder, name):
        refuse(capsys, folder, f"Reading the CT: found no file or folder '{name}'", folder / name)
        (folder / name).write_bytes(b"")
        refuse(capsys, folder, f"an empty file '{name}'", folder / name)
        (folder / name).write_bytes(b"%PDF-1.7 this is something else\n" * 50)
        refuse(capsys, folder, "Reading the CT: found (a|the) ", folder / name)

    @pytest.mark.parametrize("ending", ["nii", "nii.gz", "nrrd", "mha", "mhd", "nhdr"])
    @pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
    def test_truncated(self, models, capsys, folder, ending, share):
        path = folder / f"ct.{ending}"
        sitk.WriteImage(image(chest()), str(path), ending in ("nii.gz", "nrrd", "mha"))
        voxels = next((file for file in folder.iterdir() if "raw" in file.name or "zraw" in file.name), path)
        data = voxels.read_bytes()
        voxels.write_bytes(data[: int(len(data) * share)])
        refuse(capsys, folder, r"Reading the CT: found (a damaged or truncated|a file without a)", path)

    def test_data_file_missing(self, models, capsys, folder):
        sitk.WriteImage(image(chest()), str(folder / "ct.mhd"))
        (folder / "ct.raw").unlink()
        refuse(capsys, folder, r"without its data file 'ct\.raw'", folder / "ct.mhd")

    def test_a_flipped_bit_in_a_compressed_file(self, models, capsys, folder):
        noise = np.random.default_rng(1).integers(-1000, 400, (12, 64, 64), np.int16)
        sitk.WriteImage(image(noise), str(folder / "ct.nii.gz"))
        data = bytearray((folder / "ct.nii.gz").read_bytes())
        data[len(data) // 2] ^= 16
        (folder / "ct.nii.gz").write_bytes(data)
        refuse(capsys, folder, "damaged or truncated NIfTI", folder / "ct.nii.gz")

    def test_a_header_that_claims_more_than_any_scan_has(self, models, capsys, folder):
        sitk.WriteImage(image(chest()), str(folder / "ct.nii"))
        data = bytearray((folder / "ct.nii").read_bytes())
        data[42:48] = struct.pack("<3h", 32000, 32000, 32000)
        (folder / "huge.nii").write_bytes(data)
        refuse(capsys, folder, "claims 32000×32000×32000 voxels", folder / "huge.nii")
        data[42:48] = struct.pack("<3h", 1200, 1200, 1400)  # 4 GB, which must not be asked for
        (folder / "bomb.nii.gz").write_bytes(gzip.compress(bytes(data)))
        refuse(capsys, folder, "damaged or truncated NIfTI", folder / "bomb.nii.gz")
        header = "NRRD0004\ntype: short\ndimension: 3\nsizes: 1200 1200 1400\nspacings: 1 1 1\nencoding: gzip\n\n"
        (folder / "bomb.nrrd").write_bytes(header.encode() + gzip.compress(bytes(4000)))
        refuse(capsys, folder, "damaged or truncated NRRD", folder / "bomb.nrrd")

    @pytest.mark.parametrize(
        ("old", "new", "sentence"),
        [
            ("NDims = 3", "NDims = -1", "no number of dimensions"),
            ("DimSize = 64 64 12", "DimSize = 64 64", "3 dimensions of 2 sizes"),
            ("DimSize = 64 64 12", "DimSize = 64 -64 12", "claims 64×0×12 voxels"),
            ("MET_SHORT", "MET_STRING", "voxels of type 'MET_STRING'"),
            ("BinaryData = True", "BinaryData = False", "voxels that are no numbers"),
            ("Offset = 0 0 0", "Offset = 0 x 0", "'Offset' without its 3 numbers"),
            ("Offset = 0 0 0", "HeaderSize = -5", "impossible header size"),
            ("TransformMatrix = 1 0 0 0 1 0 0 0 1", "TransformMatrix = 0 0 0 0 1 0 0 0 1", "spacing of 0×5×5 mm"),
        ],
    )
    def test_a_metaimage_header_that_makes_no_sense(self, models, capsys, folder, old, new, sentence):
        sitk.WriteImage(image(chest()), str(folder / "ct.mha"))
        data = (folder / "ct.mha").read_bytes()
        assert old.encode() in data
        (folder / "ct.mha").write_bytes(data.replace(old.encode(), new.encode()))
        refuse(capsys, folder, sentence, folder / "ct.mha")

    @posix
    @pytest.mark.parametrize("name", ["ct.nrrd", "ct.mhd", "ct.nii.gz", "ct.dcm"])
    def test_a_pipe_does_not_hang(self, models, capsys, folder, name):
        os.mkfifo(folder / name)
        done = run_here(capsys, "segment", folder / name, "-o", folder / "out")
        refused(done, "not a regular file")

    def test_a_folder_without_dicom(self, models, capsys, folder):
        (folder / "empty").mkdir()
        refuse(capsys, folder, "no DICOM file among 0 files in 'empty'", folder / "empty")
        (folder / "empty" / "readme.txt").write_text("hello")
        refuse(capsys, folder, "no DICOM file among 1 files", folder / "empty")

    def test_an_mr_series(self, models, capsys, folder):
        (folder / "mr").mkdir()
        for path in series_files()[:4]:
            copy_slice(path, folder / "mr" / path.name, g0008e0060="MR")
        refuse(capsys, folder, r"images of modality MR \(4 images\); expected a folder with one CT", folder / "mr")


class TestImages:
    @pytest.mark.parametrize("ending", ["nrrd", "nii.gz", "mha"])
    @pytest.mark.parametrize(
        ("made", "sentence"),
        [
            (lambda: image(chest()[5]), "a 2-D image of 64×64 pixels; expected a 3-D chest CT"),
            (lambda: image(np.stack([chest()] * 3, -1), is_vector=True), "3 components per voxel"),
            (lambda: image(np.stack([chest()] * 2, -1), is_vector=True), "2 components per voxel"),
            (lambda: sitk.JoinSeries([image(chest())] * 4), r"4-D image of 64×64×12×4 \(4 time points\)"),
            (lambda: sitk.Cast(image(np.clip(chest() // 8 + 125, 0, 255)), sitk.sitkUInt8), "8-bit gray levels"),
            (lambda: image(np.abs(chest()) + 20), "no air"),
            (lambda: image(np.full((12, 64, 64), -1000, np.int16)), "-1000 in every voxel"),
            (lambda: image(np.random.default_rng(0).integers(-1024, -900, (12, 64, 64), np.int16)), "nothing but air"),
            (lambda: image(chest()[5:6]), "1 axial slice of 64×64 pixels; expected .*at least 3 slices"),
            (lambda: image(chest()[5:7]), "2 axial slices"),
            (lambda: image(np.full((1, 1, 1), 30, np.int16)), "1 axial slice of 1×1 pixels"),
            (lambda: image(chest()[:, :20, :20]), "axial slices of 20×20 pixels"),
        ],
        ids=["2-D", "rgb", "vector", "4-D", "8-bit", "mr", "constant", "air", "1 slice", "2 slices", "1 voxel", "tiny"],
    )
    def test_what_is_no_chest_ct(self, models, capsys, folder, made, sentence, ending):
        sitk.WriteImage(made(), str(folder / f"ct.{ending}"))
        refuse(capsys, folder, sentence, folder / f"ct.{ending}")

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("name", ["ct.nrrd", "ct.nii.gz", "ct.mha"])
    def test_voxels_that_are_no_numbers(self, models, capsys, folder, name, value):
        array = chest(dtype=np.float32)
        array[3, 30, 30] = value
        sitk.WriteImage(image(array), str(folder / name))
        refuse(capsys, folder, "1 voxels? that (is|are) NaN or infinite", folder / name)

    @pytest.mark.parametrize("spacing", [0.0, -1.5, float("nan")])
    def test_a_spacing_that_cannot_be(self, models, capsys, folder, spacing):
        sitk.WriteImage(image(chest()), str(folder / "ct.nii"))
        data = bytearray((folder / "ct.nii").read_bytes())
        struct.pack_into("<f", data, 84, spacing)
        (folder / "ct.nii").write_bytes(data)
        text = rf"a voxel spacing of (5×)+{spacing:g}(×5)? mm; expected a positive spacing"
        if spacing != -1.5:  # of which NIfTI readers take the amount
            refuse(capsys, folder, text, folder / "ct.nii")
        sitk.WriteImage(image(chest()), str(folder / "ct.mha"))
        data = (
            (folder / "ct.mha")
            .read_bytes()
            .replace(b"ElementSpacing = 5 5 5", f"ElementSpacing = 5 5 {spacing}".encode())
        )
        (folder / "ct.mha").write_bytes(data)
        refuse(capsys, folder, text, folder / "ct.mha")
        header = f"NRRD0004\ntype: short\ndimension: 3\nsizes: 64 64 12\nspacings: 5 5 {spacing}\n"
        (folder / "ct.nrrd").write_bytes(f"{header}encoding: raw\nendian: little\n\n".encode() + chest().tobytes())
        refuse(capsys, folder, text, folder / "ct.nrrd")

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", ["phantom", "head"])
    def test_a_phantom_and_a_head_have_no_lungs(self, capsys, folder, home, kind):
        sitk.WriteImage(phantom() if kind == "phantom" else head(), str(folder / "ct.nrrd"), True)
        model = home / ".lesiondecomp" / "models" / "untrained-lesions"
        text = r"Lung segmentation: found \d+ mL of lung; expected at least"
        refuse(capsys, folder, text, folder / "ct.nrrd", "--model", model)


def phantom() -> sitk.Image:
    """A water cylinder with rods of plastic and bone, on a table, HU."""
    z, y, x = np.indices((24, 128, 128))
    rng = np.random.default_rng(5)
    hu = np.full(z.shape, -1000.0)
    hu[np.hypot(y - 64, x - 64) < 40] = 0
    for angle, value in enumerate((-100, 120, 340, 900)):
        center = 64 + 24 * np.cos(angle * np.pi / 2), 64 + 24 * np.sin(angle * np.pi / 2)
        hu[np.hypot(y - center[0], x - center[1]) < 5] = value
    hu[:, 108:112] = -200
    return image((hu + rng.normal(0, 12, hu.shape)).astype(np.int16), (2.0, 2.0, 4.0))


def head() -> sitk.Image:
    """A head: scalp, skull of 700 to 1000 HU, brain with ventricles, sinuses and ear cells filled with air."""
    z, y, x = np.indices((36, 128, 128))
    rng = np.random.default_rng(6)
    radius = np.sqrt(((y - 64) / 46) ** 2 + ((x - 64) / 37) ** 2 + ((z - 8) / 30) ** 2)
    hu = np.full(z.shape, -1000.0)
    hu[radius < 1.0] = 20
    hu[radius < 0.93] = 700 + 300 * rng.random(np.count_nonzero(radius < 0.93))
    hu[radius < 0.83] = 32
    hu[(np.hypot(y - 62, np.abs(x - 64) - 6) < 5) & (radius < 0.5)] = 6
    for side in (-1, 1):
        hu[((y - 30) / 8) ** 2 + ((x - 64 - side * 9) / 6) ** 2 + ((z - 5) / 4) ** 2 < 1] = -980
        hu[((y - 72) / 5) ** 2 + ((x - 64 - side * 29) / 3) ** 2 + ((z - 4) / 3) ** 2 < 1] = -850
    return image((hu + rng.normal(0, 6, hu.shape)).astype(np.int16), (2.0, 2.0, 4.0))


class TestMasks:
    def test_wrong_size(self, models, capsys, folder, good):
        write_image(folder / "small.nrrd", np.ones((11, 64, 64), np.uint8), np.eye(4))
        text = r"Reading the lung mask: found a mask of 64×64×11 voxels of 1×1×1 mm; expected the CT's grid"
        refuse(capsys, folder, text, good[0], "--lung-mask", folder / "small.nrrd")

    def test_missing_empty_and_elsewhere(self, models, capsys, folder, good):
        refuse(capsys, folder, "Reading the lung mask: found no file", good[0], "--lung-mask", folder / "absent.nrrd")
        write_image(folder / "elsewhere.nrrd", np.ones((12, 64, 64), np.uint8), np.diag([5.0, 5, 5, 1]))
        refuse(capsys, folder, "nearest neighbor", good[0], "--lung-mask", folder / "elsewhere.nrrd")


class TestBundles:
    @pytest.mark.parametrize(
        ("damage", "sentence"),
        [
            (lambda bundle: shutil.rmtree(bundle), "no bundle"),
            (lambda bundle: (bundle / "bundle.json").unlink(), "no bundle.json"),
            (lambda bundle: (bundle / WEIGHTS_NAME).unlink(), "no weights file"),
            (lambda bundle: (bundle / "bundle.json").write_text("{"), "not JSON"),
            (lambda bundle: (bundle / "bundle.json").write_text('{"name": "of another program"}'), "format version"),
            (lambda bundle: edit(bundle, format_version=99), "format version 99"),
            (lambda bundle: edit(bundle, task="lungs"), "task"),
            (lambda bundle: (bundle / WEIGHTS_NAME).write_bytes((bundle / WEIGHTS_NAME).read_bytes()[:-9]), "SHA-256"),
            (lambda bundle: flip(bundle / WEIGHTS_NAME), "weights with SHA-256"),
            (lambda bundle: edit(bundle, architecture="imagined"), "unknown architecture 'imagined'"),
            (lambda bundle: edit(bundle, architecture_arguments={"channels": 5, "levels": 3}), "do not load"),
            (lambda bundle: with_weights(bundle, Trap()), "do not load"),
            (lambda bundle: with_weights(bundle, Trap(), 1), "do not load"),
            (lambda bundle: with_weights(bundle, {"other.weight": 1}), "do not load"),
        ],
    )
    def test_foreign_corrupt_and_tampered(self, models, capsys, folder, good, damage, sentence):
        shutil.copytree(models / "untrained-lesions", folder / "bundle")
        damage(folder / "bundle")
        options = (good[0], "--lung-mask", good[1], "--model", folder / "bundle")
        refuse(capsys, folder, f"Model bundle: found .*{sentence}", *options)
        assert not Trap.sprung.exists()

    def test_unknown_name(self, models, capsys, folder, good):
        text = "no bundle 'nothing'; expected a bundle folder or one of: untrained-lesions, untrained-lungs"
        refuse(capsys, folder, text, good[0], "--model", "nothing")


class Trap:
    """Would make a file if its pickle were executed."""

    sprung = Path(os.environ.get("TMPDIR", "/tmp")) / f"lesiondecomp-trap-{os.getpid()}"

    def __reduce__(self):
        return Path.touch, (self.sprung,)


def edit(bundle: Path, **values) -> None:
    metadata = json.loads((bundle / "bundle.json").read_text("utf-8"))
    (bundle / "bundle.json").write_text(json.dumps({**metadata, **values}), "utf-8")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def with_weights(bundle: Path, content: object, format_version: int = 2) -> None:
    """Weights of the attacker's choice, and a bundle.json that vouches for them."""
    import hashlib

    data = pickle.dumps(content)
    (bundle / WEIGHTS_NAMES[format_version]).write_bytes(data)
    edit(bundle, format_version=format_version, weights_sha256=hashlib.sha256(data).hexdigest())


class TestOutput:
    @pytest.mark.parametrize("name", ["report.json", "heatmap.nrrd", "overview.png", "scene.mrb"])
    def test_existing_without_overwrite(self, models, capsys, folder, good, name):
        (folder / "out").mkdir()
        (folder / "out" / name).write_text("precious")
        refuse(capsys, folder, rf"found an earlier {re.escape(name)} in 'out'.*--overwrite", good[0])

    def test_a_file_in_the_way(self, models, capsys, folder, good):
        (folder / "out").write_text("a file")
        refuse(capsys, folder, "a file where a folder should be for 'out'", good[0], "--lung-mask", good[1])

    @posix
    def test_read_only(self, models, capsys, folder, good, monkeypatch):
        (folder / "out").mkdir()
        (folder / "out").chmod(0o555)
        if os.access(folder / "out", os.W_OK):  # the superuser may write all the same: let the system refuse him
            make = os.mkdir

            def refusing(path, *args, **kwargs):
                if str(path).startswith(str(folder / "out")):
                    raise PermissionError(13, "Permission denied")
                make(path, *args, **kwargs)

            monkeypatch.setattr(os, "mkdir", refusing)
        refuse(capsys, folder, "Opening the output folder: found a folder without write permission", good[0])

    @pytest.mark.slow
    @posix
    def test_disk_that_fills_up_half_way(self, folder, good, home):
        # A limit on the size of files fails as a full disk does, in the middle of a write; and needs no rights.
        code = (
            "import resource, sys; from LesionDecompLib.cli import main\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
            "sys.exit(main(sys.argv[1:]))\n"
        )
        before = snapshot(folder)
        options = ["segment", str(good[0]), "--lung-mask", str(good[1]), "-o", str(folder / "out"), "--quiet"]
        # Measuring coverage in there would meet the limit, too.
        environment = {k: v for k, v in process_environment(home).items() if not k.startswith("COVERAGE_")}
        done = subprocess.run(
            [sys.executable, "-c", code, *options], env=environment, capture_output=True, encoding="utf-8"
        )
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert "Writing the results: found a limit on the size of files for 'heatmap.nrrd'" in done.stderr
        assert snapshot(folder) == before

    @pytest.mark.slow
    @posix
    def test_full_disk(self, folder, good, home):
        small = folder / "small disk"
        small.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(small)]
        if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("needs the right to mount a small disk")
        try:
            done = run_apart(folder, home, "segment", good[0], "--lung-mask", good[1], "-o", small / "out", "--quiet")
            assert done.status == 1 and "found a full disk for" in done.err and "Traceback" not in done.err
            assert snapshot(small) == {}
        finally:
            subprocess.run(["umount", str(small)], check=True)


class TestAsAProcess:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("name", "content"),
        [("missing.nrrd", None), ("empty.nii.gz", b""), ("cut.mha", b"ObjectType = Image\nNDims = 3")],
    )
    def test_one_line_and_status_1(self, folder, home, name, content):
        if content is not None:
            (folder / name).write_bytes(content)
        before = snapshot(folder)
        done = run_apart(folder, home, "segment", name, "-o", "out")
        refused(done, "Reading the CT: found ")
        assert snapshot(folder) == before
