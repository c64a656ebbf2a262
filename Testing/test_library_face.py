"""The names at the library's root, and that importing it stays cheap."""

import subprocess
import sys

import LesionDecompLib
import pytest
from test_module_files import MODULE


@pytest.mark.parametrize(
    "name", ["Cancelled", "LesionDecompError", "Segmenter", "Volume", "find_bundle", "read_volume", "write_case"]
)
def test_each_public_name_is_found_at_the_root(name):
    assert getattr(LesionDecompLib, name).__doc__
    assert name in dir(LesionDecompLib)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'segmenter'"):
        LesionDecompLib.segmenter  # noqa: B018


def test_importing_the_library_loads_no_heavy_package():
    program = (
        f"import sys; sys.path.insert(0, {str(MODULE)!r}); import LesionDecompLib\n"
        "print(sorted({'torch', 'numpy', 'SimpleITK', 'skimage', 'scipy'} & set(sys.modules)))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True)
    assert run.stdout.strip() == "[]"
