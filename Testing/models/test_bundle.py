"""A bundle is what it states, or it is refused in one sentence."""

from __future__ import annotations

import hashlib
import io
import pickle
import shutil

import pytest
import torch
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.models import bundle as bundles
from LesionDecompLib.models.bundle import METADATA_NAME, ModelBundle, find_bundle, installed_bundles
from LesionDecompLib.models.conversion import convert_bundle
from LesionDecompLib.models.networks import DecompositionNet, UNet
from LesionDecompLib.models.weights import WEIGHTS_NAME, WEIGHTS_NAMES
from safetensors.torch import load_file
from tiny_bundle import ARGUMENTS, INPUT, METADATA, rewrite


@pytest.fixture
def bundle(tmp_path):
    torch.manual_seed(0)
    return ModelBundle.save(tmp_path / "tiny", UNet(**ARGUMENTS).eval(), METADATA, half=False)


def test_a_bundle_comes_back_with_the_same_network(bundle):
    torch.manual_seed(0)
    expected = UNet(**ARGUMENTS).eval()
    x = torch.rand(1, 1, 32, 32)
    loaded = ModelBundle.load(bundle.path, "lungs")
    torch.testing.assert_close(loaded.network()(x), expected(x))
    assert (loaded.name, loaded.task, loaded.default_threshold) == ("tiny", "lungs", 0.5)


def test_what_float16_cannot_hold_is_kept_in_float32(bundle, tmp_path):
    network = UNet(**ARGUMENTS).eval()
    network.encoder.blocks[0][1].running_var[0] = 1e6
    saved = ModelBundle.save(tmp_path / "large", network, bundle.metadata, half=True)
    state = load_file(saved.path / WEIGHTS_NAME)
    assert state["encoder.blocks.0.1.running_var"][0] == 1e6
    assert state["head.weight"].dtype == torch.float16
    assert saved.network().encoder.blocks[0][1].running_var[0] == 1e6


def test_every_tampered_byte_of_the_weights_is_noticed(bundle):
    file = bundle.path / WEIGHTS_NAME
    original = file.read_bytes()
    for position in (0, len(original) // 2, len(original) - 1):
        changed = bytearray(original)
        changed[position] ^= 1
        file.write_bytes(changed)
        with pytest.raises(LesionDecompError, match="SHA-256"):
            ModelBundle.load(bundle.path)


@pytest.mark.parametrize(
    ("changes", "reported"),
    [
        ({"format_version": 99}, "format version 99"),
        ({"task": "liver"}, "liver"),
        ({"default_threshold": 7.0}, "default_threshold"),
        ({"input": {}}, "size"),
        (
            {"input": {"size": [9**9, 64], "spacing_mm": 2.0, "hu_window": [0, 1], "mean": 0.0, "std": 1.0}},
            "input.size",
        ),
        ({"description": 5}, "description"),
        ({"name": "red\x1b[31m"}, "'name'"),
        ({"name": "n" * 1000}, "'name'"),
        ({"input": {**INPUT, "std": float("inf")}}, "input.std"),
        ({"input": {**INPUT, "mean": 10**400}}, "input.mean"),
        ({"input": {**INPUT, "hu_window": [True, "x"]}}, "input.hu_window"),
        ({"input": {**INPUT, "rim_pixels": 10**9}}, "input.rim_pixels"),
        ({"architecture_arguments": {**ARGUMENTS, "levels": 10**9}}, "architecture_arguments"),
        ({"architecture_arguments": {**ARGUMENTS, "channels": -4}}, "architecture_arguments"),
        ({"architecture_arguments": {**ARGUMENTS, "norm": ["batch"]}}, "architecture_arguments"),
    ],
)
def test_metadata_that_cannot_be_is_refused(bundle, changes, reported):
    rewrite(bundle, **changes)
    with pytest.raises(LesionDecompError, match=reported):
        ModelBundle.load(bundle.path)


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "transformer"},
        {"architecture_arguments": {**ARGUMENTS, "channels": 8}},
        {"architecture_arguments": {**ARGUMENTS, "channels": 4096}},
        {"architecture_arguments": {**ARGUMENTS, "out_channels": 1}},
        {"input": {**INPUT, "size": [33, 33]}},  # no multiple of what the levels halve
        {"architecture_arguments": {"sides": 3}},
    ],
)
def test_weights_that_do_not_fit_the_architecture_are_refused(bundle, changes):
    rewrite(bundle, **changes)
    with pytest.raises(LesionDecompError, match="Model bundle: found"):
        ModelBundle.load(bundle.path).network()


def with_weights(bundle, weights, format_version):
    """The bundle with these weights, for which its metadata vouch."""
    (bundle.path / WEIGHTS_NAME).unlink()
    (bundle.path / WEIGHTS_NAMES[format_version]).write_bytes(weights)
    rewrite(bundle, format_version=format_version, weights_sha256=hashlib.sha256(weights).hexdigest())


@pytest.mark.parametrize("format_version", [1, 2])
def test_pickled_code_is_never_run(bundle, tmp_path, format_version):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    with_weights(bundle, pickle.dumps(Evil()), format_version)
    with pytest.raises(LesionDecompError, match="do not load"):
        ModelBundle.load(bundle.path).network()
    assert not (tmp_path / "pwned").exists()


def of_format_1(bundle, dtype=torch.float32):
    """The bundle as it was written before weights were safetensors."""
    state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in
             load_file(bundle.path / WEIGHTS_NAME).items()}  # fmt: skip
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with_weights(bundle, buffer.getvalue(), 1)
    return state


def test_a_bundle_of_format_1_is_read_as_it_was(bundle):
    expected = of_format_1(bundle)
    loaded = ModelBundle.load(bundle.path, "lungs")
    assert loaded.format_version == 1
    state = loaded.network().state_dict()
    assert all(torch.equal(state[key], value) for key, value in expected.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_converted_bundle_has_the_same_tensors_and_states_the_same(bundle, dtype):
    expected = of_format_1(bundle, dtype)
    (bundle.path / "MODEL_CARD.md").write_text("a card")
    assert convert_bundle(bundle.path)
    assert sorted(path.name for path in bundle.path.iterdir()) == ["MODEL_CARD.md", METADATA_NAME, WEIGHTS_NAME]
    found = load_file(bundle.path / WEIGHTS_NAME)
    assert {key: value.dtype for key, value in found.items()} == {key: value.dtype for key, value in expected.items()}
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    converted = ModelBundle.load(bundle.path)
    assert {**converted.metadata, "weights_sha256": ""} == {**bundle.metadata, "weights_sha256": ""}
    before = (bundle.path / METADATA_NAME).read_bytes()
    assert not convert_bundle(bundle.path) and (bundle.path / METADATA_NAME).read_bytes() == before


def test_what_does_not_load_is_not_converted(bundle):
    of_format_1(bundle)
    rewrite(bundle, format_version=1, weights_sha256=ModelBundle.load(bundle.path).sha256, architecture="transformer")
    before = {path.name: path.read_bytes() for path in bundle.path.iterdir()}
    with pytest.raises(LesionDecompError, match="unknown architecture"):
        convert_bundle(bundle.path)
    assert {path.name: path.read_bytes() for path in bundle.path.iterdir()} == before


def test_layers_that_two_decoders_share_are_written_for_each(tmp_path):
    arguments = {"channels": 4, "levels": 2, "shared": True}
    metadata = {**METADATA, "task": "lesions", "architecture": "decomposition", "architecture_arguments": arguments}
    network = DecompositionNet(**arguments).eval()
    saved = ModelBundle.save(tmp_path / "shared", network, metadata, half=False)
    found, expected = saved.network().state_dict(), network.state_dict()
    assert list(found) == list(expected) and all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_symlink_in_place_of_the_weights_is_refused(bundle, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.move(bundle.path / WEIGHTS_NAME, elsewhere)
    (bundle.path / WEIGHTS_NAME).symlink_to(elsewhere)
    with pytest.raises(LesionDecompError, match="no weights file"):
        ModelBundle.load(bundle.path)


def test_a_symlink_in_place_of_the_metadata_is_refused(bundle, tmp_path):
    shutil.move(bundle.path / METADATA_NAME, tmp_path / "elsewhere.json")
    (bundle.path / METADATA_NAME).symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(LesionDecompError, match=r"no bundle\.json"):
        ModelBundle.load(bundle.path)


@pytest.mark.parametrize(
    "heat",
    [
        {"smoothing_px": 1e9},
        {"smoothing_mm": 1e9},
        {"smoothing_mm": -1.0},
        {"raw": [], "scaled": []},
        {"raw": [0.0, float("nan")], "scaled": [0.0, 1.0]},
        {"raw": [0.0, 1.0], "scaled": [0.0, 7.0]},
        {"raw": "01", "scaled": "01"},
        {"flip": 3},
        {"source": "attention"},
        {"shrink": 3},
        {"unknown": 1},
    ],
)
def test_a_heat_that_cannot_be_is_refused(tmp_path, heat):
    arguments = {"channels": 4, "levels": 2}
    metadata = {**METADATA, "task": "lesions", "architecture": "decomposition", "architecture_arguments": arguments}
    lesions = ModelBundle.save(tmp_path / "heat", DecompositionNet(**arguments), {**metadata, "heat": heat})
    with pytest.raises(LesionDecompError, match="a heat definition that cannot be read"):
        ModelBundle.load(lesions.path).network()


def test_one_broken_bundle_does_not_hide_the_others(bundle, tmp_path, monkeypatch):
    (tmp_path / "a broken one").mkdir()
    (tmp_path / "a broken one" / METADATA_NAME).write_text("{")
    rewrite(bundle, default=True)
    monkeypatch.setattr(bundles, "model_folders", lambda: [tmp_path])
    assert find_bundle("tiny", "lungs").path == find_bundle(None, "lungs").path == bundle.path
    with pytest.raises(LesionDecompError, match="is not JSON"):
        find_bundle("a broken one", "lungs")
    with pytest.raises(LesionDecompError, match="is not JSON"):
        find_bundle(None, "lesions")  # perhaps the broken one was the default


def test_a_bundle_for_another_task_is_refused(bundle):
    with pytest.raises(LesionDecompError, match="task 'lungs'"):
        find_bundle(bundle.path, "lesions")


def test_an_unknown_name_states_which_are_known():
    with pytest.raises(LesionDecompError, match="no bundle 'nonesuch'"):
        find_bundle("nonesuch", "lesions")


def test_the_shipped_bundles_verify_and_have_one_default_each():
    for task in ("lungs", "lesions"):
        shipped = [bundle for bundle in installed_bundles(task) if bundle.metadata.get("default")]
        assert len(shipped) == 1
        assert find_bundle(None, task).sha256 == shipped[0].sha256
        size = sum(file.stat().st_size for file in shipped[0].path.iterdir())
        assert size <= {"lungs": 10, "lesions": 15}[task] * 2**20
