"""A PyTorch that cannot be loaded, and one without CUDA beside a card: what a person can do about it."""

from __future__ import annotations

import sys

import pytest
import torch
from LesionDecompLib.cli import error_sentence
from LesionDecompLib.errors import ConfigError
from LesionDecompLib.models import device
from LesionDecompLib.models.torch_loading import torch_error
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
    error = torch_error(ModuleNotFoundError("No module named 'torch'", name="torch"))
    assert error is not None and error.code == "no_torch" and "pip install torch" in str(error)


def test_a_missing_temporary_folder_is_named():
    error = torch_error(FileNotFoundError(2, "No usable temporary directory found in ['/none']"))
    assert error is not None and error.code == "no_temporary_folder" and "TMPDIR" in str(error)


def test_other_errors_stay_what_they_are():
    for error in (OSError("disk"), ImportError("no module named x"), ValueError("x")):
        assert torch_error(error) is None


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
