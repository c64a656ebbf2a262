"""The names at the library's root, and that importing it stays cheap."""

import ast
import subprocess
import sys

import LesionDecompLib
import pytest
from repository import MODULE


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


def late_imports(path):
    """Lines of a file that import the library's own modules inside a function."""
    text = path.read_text(encoding="utf-8")
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    imports = [node for function in functions for node in ast.walk(function) if isinstance(node, ast.ImportFrom)]
    return [text.splitlines()[node.lineno - 1] for node in imports if node.level]


def test_modules_import_each_other_at_the_top_or_state_why_not():
    """The command line's commands import what they run when they run, as its package states."""
    library = MODULE / "LesionDecompLib"
    files = [path for path in library.rglob("*.py") if "cli" not in path.parts]
    assert files
    silent = {path.name: [line for line in late_imports(path) if "#" not in line] for path in files}
    assert {name: lines for name, lines in silent.items() if lines} == {}


def test_the_library_logs_and_prints_nothing_unless_its_program_asks(tmp_path, monkeypatch, caplog, capsys):
    from LesionDecompLib.models import bundle

    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "bundle.json").write_text("{")
    monkeypatch.setattr(bundle, "model_folders", lambda: [tmp_path])
    with caplog.at_level("WARNING", "LesionDecompLib"):
        assert bundle.installed_bundles() == []
    assert [record.name for record in caplog.records] == ["LesionDecompLib.models.bundle"]
    assert capsys.readouterr() == ("", "")
