"""Libraries that are missing or cannot be loaded, and a PyTorch without CUDA beside a card: what a person can do."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from dicom_files import series_files
from LesionDecompLib.cli import error_sentence, main
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.errors import ConfigError
from LesionDecompLib.io.masks import read_mask
from LesionDecompLib.io.nifti_writer import write_nifti
from LesionDecompLib.io.readers import read_volume
from LesionDecompLib.libraries import library_error, require
from LesionDecompLib.models import device
from LesionDecompLib.models.bundle import find_bundle
from LesionDecompLib.processes.events import Failed

DLL = "[WinError 126] The specified module could not be found. Error loading c10.dll or one of its dependencies."


def raised_by_import(folder, monkeypatch, body: str) -> BaseException:
    """What importing a torch with this content raises."""
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").write_text(body, "utf-8")
    monkeypatch.syspath_prepend(folder)
    for name in [name for name in sys.modules if name.split(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises((OSError, ImportError)) as error:
        __import__("torch")
    monkeypatch.undo()
    return error.value


@pytest.mark.parametrize(
    ("body", "remedy"),
    [
        (f"raise OSError({DLL!r})", "Visual C++ Redistributable"),
        ("def load():\n    raise ImportError('libstdc++.so.6: version GLIBCXX_3.4.32 not found')\nload()", "libstdc"),
    ],
)
def test_a_torch_that_cannot_be_loaded_is_named_with_what_to_do(tmp_path, monkeypatch, body, remedy):
    error = raised_by_import(tmp_path, monkeypatch, body)
    sentence = error_sentence(error)
    assert "PyTorch, which cannot be loaded" in sentence and remedy in sentence and "reinstall torch" in sentence
    assert "Internal error" not in sentence
    failed = Failed.of(error)
    assert (failed.code, failed.kind) == ("torch_not_loadable", "ConfigError")


def test_a_missing_torch_is_named():
    error = library_error(ModuleNotFoundError("No module named 'torch'", name="torch"))
    assert error is not None and error.code == "no_torch" and "pip install torch" in str(error)


def test_a_missing_temporary_folder_is_named():
    error = library_error(FileNotFoundError(2, "No usable temporary directory found in ['/none']"))
    assert error is not None and error.code == "no_temporary_folder" and "TMPDIR" in str(error)


def test_other_errors_stay_what_they_are():
    ours = ModuleNotFoundError("No module named 'LesionDecompLib.x'", name="LesionDecompLib.x")
    for error in (OSError("disk"), ImportError("no module named x"), ValueError("x"), ours):
        assert library_error(error) is None


def without(monkeypatch, module: str) -> None:
    """Let a library be missing."""
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)

    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == module:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])


@pytest.mark.parametrize(
    ("module", "read"),
    [
        ("pydicom", lambda place, ct: read_volume(series_files()[0].parent)),
        ("pydicom", lambda place, ct: read_mask(series_files()[0], ct)),
        ("nibabel", lambda place, ct: write_nifti(place / "a.nii.gz", ct.array, ct)),
        ("nibabel", lambda place, ct: read_volume(place / "ct.nii.gz")),
        ("safetensors", lambda place, ct: find_bundle(None, "lungs").network()),
    ],
)
def test_a_missing_library_is_named_with_what_to_install(tmp_path, monkeypatch, module, read):
    ct = Volume.from_array(np.zeros((3, 4, 5), np.int16), np.eye(4))
    write_nifti(tmp_path / "ct.nii.gz", ct.array, ct)
    without(monkeypatch, module)
    with pytest.raises(ConfigError) as error:
        read(tmp_path, ct)
    assert error.value.code == "no_library" and error.value.advice == f"Install it: pip install {module}."
    assert isinstance(error.value.__cause__, ImportError)


def test_a_library_is_called_by_its_name_on_pypi():
    for module, name in (("skimage", "scikit-image"), ("PIL", "pillow"), ("sklearn.metrics", "scikit-learn")):
        error = library_error(ModuleNotFoundError(f"No module named {module!r}", name=module))
        assert error is not None and error.advice.endswith(f"install {name}.")
    error = library_error(ModuleNotFoundError("No module named '_bz2'", name="_bz2"))
    assert error is not None and "pip" not in error.advice


@pytest.mark.parametrize(("asked", "module"), [(["--format", "nii.gz"], "nibabel"), (["--report"], "jinja2")])
def test_a_file_that_cannot_be_made_is_refused_before_the_work(tmp_path, monkeypatch, capsys, asked, module):
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == module else True)
    assert main(["segment", str(tmp_path / "no ct.nrrd"), "-o", str(tmp_path / "out"), *asked]) == 1
    assert f"pip install {module}" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*"))


def test_what_is_there_is_not_asked_for():
    require("json", "numpy")


@pytest.mark.parametrize("card", [True, False])
def test_a_torch_for_cpus_only_beside_a_card_is_named_with_the_remedy(monkeypatch, card):
    monkeypatch.setattr(device, "has_nvidia_card", lambda: card)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = device.choose_device("auto")[1]
    assert ("CPUs only beside an NVIDIA card" in words and "pytorch.org" in words) == card
    with pytest.raises(ConfigError) as error:
        device.choose_device("cuda")
    assert error.value.code == ("cpu_only_torch" if card else "no_such_device")
    assert ("pytorch.org" in str(error.value)) == card
