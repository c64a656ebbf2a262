"""What faster arithmetic promises: the heat of float32, in any batch, on any number of threads."""

from __future__ import annotations

import gzip
import io
import zlib

import numpy as np
import pytest
import SimpleITK
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from LesionDecompLib.ct.grid import resampling_matrix
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.io import gzip_writer
from LesionDecompLib.io.gzip_writer import BLOCK_BYTES, write_gzip
from LesionDecompLib.io.nrrd import write_nrrd
from LesionDecompLib.io.readers import read_volume
from LesionDecompLib.models.bundle import ModelBundle, find_bundle
from LesionDecompLib.models.networks import DecompositionNet
from LesionDecompLib.models.precision import computing_in, has_fast_bf16
from LesionDecompLib.models.runtime import (
    BF16_HEAT_ERROR,
    LARGEST_HEAT_ERROR,
    inference_network,
    keep_in_float32,
    network_precision,
)
from LesionDecompLib.pipeline import Segmenter
from LesionDecompLib.segmentation.heat import lesion_heat
from LesionDecompLib.segmentation.lesions import lung_box
from LesionDecompLib.segmentation.resampling import BandedMatrix

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def part_of_sample(sample_folder) -> Volume:
    """Eight slices through the middle of the sample CT."""
    ct, _ = read_volume(sample_folder / "chest_ct_tumor.nrrd")
    middle = ct.shape[0] // 2
    matrix = ct.ijk_to_ras.copy()
    matrix[:3, 3] += matrix[:3, 2] * (middle - 4)
    return Volume.from_array(np.ascontiguousarray(ct.array[middle - 4 : middle + 4]), matrix, "part")


@pytest.mark.slow
def test_the_heat_is_within_a_hundredth_of_float32_and_the_report_states_which(part_of_sample):
    quick = Segmenter(device="cpu").run(part_of_sample)
    exact = Segmenter(device="cpu", precision="float32").run(part_of_sample)
    assert exact.precision == {"lungs": "float32", "lesions": "float32"}
    fast = "bfloat16" if has_fast_bf16(CPU) else "float32"
    assert quick.precision == {"lungs": fast, "lesions": fast}
    both = (quick.lungs > 0) & (exact.lungs > 0)
    assert np.count_nonzero(both) > 100_000
    assert 2 * np.count_nonzero(both) / (np.count_nonzero(quick.lungs) + np.count_nonzero(exact.lungs)) > 0.998
    # The lungs are found in lower precision: a voxel more or less of them. Heat is compared with the same lungs.
    same = Segmenter(device="cpu").run(part_of_sample, lung_mask=exact.lungs)
    assert same.precision == {"lesions": quick.precision["lesions"]}
    assert np.abs(same.heat - exact.heat).max() <= LARGEST_HEAT_ERROR


def test_a_model_that_does_not_bear_it_computes_in_float32(monkeypatch):
    monkeypatch.setattr("LesionDecompLib.models.runtime.fast_precision", lambda device: torch.bfloat16)
    lesions, lungs = find_bundle(None, "lesions"), find_bundle(None, "lungs")

    def with_error(error) -> ModelBundle:
        return ModelBundle(lesions.path, {**lesions.metadata, BF16_HEAT_ERROR: error})

    assert network_precision(with_error(0.02), CPU) == torch.float32
    assert network_precision(with_error(None), CPU) == torch.float32  # never measured
    assert network_precision(with_error(0.004), CPU) == torch.bfloat16
    assert network_precision(with_error(0.004), CPU, "float32") == torch.float32
    assert network_precision(lungs, CPU) == torch.bfloat16
    monkeypatch.setattr("LesionDecompLib.models.runtime.fast_precision", lambda device: torch.float32)
    assert network_precision(lungs, CPU) == torch.float32


def computed_in(network: DecompositionNet, x: torch.Tensor) -> dict[str, tuple[torch.dtype, torch.dtype]]:
    """What each convolution's weights meet, and what the rest is given."""
    seen = {}
    for name, module in network.named_modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            plain = name.replace(".part", "")
            module.register_forward_hook(
                lambda _, given, answer, plain=plain: seen.update({plain: (given[0].dtype, answer.dtype)})
            )
    with torch.inference_mode(), computing_in(torch.bfloat16, CPU):
        network(x)
    return seen


@pytest.mark.parametrize("arguments", [{}, {"shared": True}, {"normal_decoder": False}, {"lesion_decoder": False}])
def test_the_layers_that_heat_needs_exact_stay_in_float32(arguments):
    torch.manual_seed(4)
    network = DecompositionNet(8, 3, 16, gated=True, **arguments).eval().requires_grad_(False)
    x = torch.rand(1, 1, 32, 32) * 2 - 1
    expected = network(x)
    keep_in_float32(network)
    assert all(torch.equal(a, b) for a, b in zip(network(x), expected, strict=True))
    seen = computed_in(network, x)
    exact = {name for name, kinds in seen.items() if kinds == (torch.float32, torch.float32)}
    heads = {name for name in ("normal_head", "lesion_head") if hasattr(network, name)}
    trunk = {"normal_trunk.blocks.1.0", "normal_trunk.blocks.1.3"} if "normal_head" in heads else set()
    assert exact == {"encoder.blocks.0.0", "encoder.blocks.0.3", "encoder.downs.0"} | trunk | heads
    assert {kinds[1] for name, kinds in seen.items() if name not in exact} == {torch.bfloat16}
    assert seen["encoder.blocks.1.0"][0] == torch.bfloat16  # it is given 16 bits, not float32 to be rounded again


@pytest.mark.slow
def test_what_stays_in_float32_is_what_makes_most_of_the_error(part_of_sample):
    bundle = find_bundle(None, "lesions")
    lungs = Segmenter(device="cpu", precision="float32").run(part_of_sample).lungs
    box = lung_box(part_of_sample.view.to_axial(lungs))

    def heat(prepared: torch.dtype, computed: torch.dtype) -> np.ndarray:
        network = inference_network(bundle, CPU, prepared)
        return lesion_heat(part_of_sample, lungs, box, network, bundle, CPU, precision=computed)[0]

    exact = heat(torch.float32, torch.float32)
    mixed, rounded = (np.abs(heat(kind, torch.bfloat16) - exact) for kind in (torch.bfloat16, torch.float32))
    assert 0 < mixed.max() < 0.6 * rounded.max()
    assert np.array_equal(heat(torch.bfloat16, torch.float32), exact)


def test_another_precision_is_refused():
    with pytest.raises(LesionDecompError, match="precision 'float8'"):
        Segmenter(device="cpu", precision="float8")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["lungs", "lesions"])
def test_folding_the_norms_changes_nothing_but_rounding(task):
    bundle = find_bundle(None, task)
    plain, folded = bundle.network(CPU), inference_network(bundle, CPU)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    channels = len(bundle.slice_input.offsets_mm)
    x = torch.rand((2, channels, 64, 96), generator=torch.Generator().manual_seed(3)) * 2 - 1
    with torch.inference_mode():
        answers = [network(x) if task == "lungs" else network.gate(x) for network in (plain, folded)]
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-4, atol=1e-4)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 90), st.integers(1, 90), st.floats(0.3, 4.0), st.integers(0, 2**32 - 1))
def test_products_in_blocks_are_those_of_the_whole_matrix(n_in, n_out, spacing, seed):
    matrix = torch.from_numpy(resampling_matrix(n_in, 1.0, n_out, spacing))
    x = torch.rand((3, n_in, 5), generator=torch.Generator().manual_seed(seed))
    banded = BandedMatrix.of(matrix)
    torch.testing.assert_close(banded.times(x), matrix @ x, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(banded.across(x.mT.contiguous()), x.mT @ matrix.T, rtol=1e-5, atol=1e-6)


def _image(shape=(6, 300, 400)) -> np.ndarray:
    rng = np.random.default_rng(8)
    image = np.zeros(shape, np.float32)
    image[2:5, 100:170, 50:300] = rng.random((3, 70, 250), dtype=np.float32)
    return image


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_no_byte(threads, monkeypatch):
    image = _image()
    planes = [memoryview(plane).cast("B") for plane in image]
    streams = []
    for cores in (2, threads):
        monkeypatch.setattr(gzip_writer, "usable_cores", lambda cores=cores: cores)
        stream = io.BytesIO()
        write_gzip(stream, planes)
        streams.append(stream.getvalue())
    assert streams[0] == streams[1]
    assert gzip.decompress(streams[0]) == image.tobytes()
    assert zlib.decompress(streams[0], 31) == image.tobytes()  # one member: no reader stops early


@pytest.mark.parametrize("length", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 5])
def test_data_of_any_length_reads_back(length):
    data = np.random.default_rng(length).integers(0, 3, length, dtype=np.uint8).tobytes()
    stream = io.BytesIO()
    write_gzip(stream, [memoryview(data)])
    assert gzip.decompress(stream.getvalue()) == data


def test_other_software_reads_the_file(tmp_path):
    image = _image()
    write_nrrd(tmp_path / "heat.nrrd", image, np.diag([0.7, 0.7, 2.0, 1.0]))
    assert np.array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(tmp_path / "heat.nrrd")), image)
