"""The library's pages are made from its docstrings; the examples in these are true."""

from __future__ import annotations

import doctest
import importlib.util
import pkgutil
import re
import warnings
from pathlib import Path

import LesionDecompLib
import pytest
from repository import ROOT

FOLDER = ROOT / "LesionDecomp" / "LesionDecompLib"
# Running it is what importing it does.
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(LesionDecompLib.__path__, "LesionDecompLib.")
    if not module.name.endswith(".__main__")
)
SOURCES = {name: Path(importlib.util.find_spec(name).origin).read_text(encoding="utf-8") for name in MODULES}
WITH_EXAMPLES = [name for name, text in SOURCES.items() if ">>> " in text]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings_are_true(name):
    outcome = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert outcome.attempted > 0 and outcome.failed == 0


def test_the_functions_people_begin_with_have_examples():
    needed = {
        "errors",
        "ct.volume",
        "ct.grid",
        "models.bundle",
        "segmentation.lesions",
        "measurement.definitions",
        "training.config",
    }
    assert {f"LesionDecompLib.{name}" for name in needed} <= set(WITH_EXAMPLES)


@pytest.mark.slow
def test_every_module_gets_a_page(tmp_path):
    pdoc = pytest.importorskip("pdoc", reason="pdoc is not installed (pip install .[test])")
    pdoc.render.configure(docformat="restructuredtext", show_source=False)
    # A module that does not import gets no page; annotations that exist for type checkers alone are shown as they are.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pdoc.pdoc("LesionDecompLib", output_directory=tmp_path)
    pages = {
        path.relative_to(tmp_path).with_suffix("").as_posix().replace("/", ".") for path in tmp_path.rglob("*.html")
    }
    assert set(MODULES) <= pages
    page = (tmp_path / "LesionDecompLib" / "pipeline.html").read_text(encoding="utf-8")
    assert re.search(r"<strong>threshold</strong>:\s+on the heat", page)


def test_docstrings_are_read_by_the_generator():
    """One field to a line, and no references in a dialect that pages show as they are."""
    wrong = []
    beside = [FOLDER.parent / "LesionDecomp.py", *FOLDER.parent.glob("LesionDecomp[MP]*/*.py")]  # the same style there
    texts = SOURCES | {path.name: path.read_text(encoding="utf-8").replace("`~", "`") for path in beside}
    for name, text in texts.items():
        for number, line in enumerate(text.splitlines(), start=1):
            if re.search(r"\S\s+:(param|raises|return)\b[^`]*:", line) or ":`~" in line:
                wrong.append(f"{name}:{number}")
    assert wrong == []
