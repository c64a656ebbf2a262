"""An extension built by CMake holds every file of the module: a file that CMakeLists.txt forgets is missing there."""

from __future__ import annotations

import hashlib
import re
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image
from repository import MODULE, ROOT, cmake_list, cmake_metadata


def shipped_files() -> set[str]:
    """Files of the module other than those of build and tests: what git tracks or would, or all there is."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=MODULE, capture_output=True
    )
    if listing.returncode == 0:
        names = [name for name in listing.stdout.decode().split("\0") if name and (MODULE / name).is_file()]
    else:
        names = [path.relative_to(MODULE).as_posix() for path in MODULE.rglob("*") if path.is_file()]
    return {name for name in names if name != "CMakeLists.txt" and not re.search(r"^Testing/|__pycache__|/\.", name)}


def test_built_extension_holds_every_python_file_but_those_of_the_evaluation():
    shipped = {name for name in shipped_files() if name.endswith(".py")}
    assert cmake_list("MODULE_PYTHON_SCRIPTS") == {name for name in shipped if "/evaluation/" not in name}


def test_built_extension_holds_every_resource():
    assert cmake_list("MODULE_PYTHON_RESOURCES") == {name for name in shipped_files() if not name.endswith(".py")}


def test_extension_index_finds_its_metadata():
    metadata = cmake_metadata()
    home = "https://github.com/lesiondecomp/SlicerLesionDecomp"
    raw = "https://raw.githubusercontent.com/lesiondecomp/SlicerLesionDecomp/main/"
    assert metadata["HOMEPAGE"] == home
    assert metadata["DEPENDS"] == "PyTorch"
    assert metadata["CONTRIBUTORS"]
    assert "research use only" in metadata["DESCRIPTION"]
    for url in (metadata["ICONURL"], *metadata["SCREENSHOTURLS"].split()):
        assert url.startswith(raw)
        assert (ROOT / url.removeprefix(raw)).is_file(), f"{url} points to a file that does not exist"


@pytest.mark.parametrize("icon", ["Resources/LesionDecomp.png", "LesionDecomp/Resources/Icons/LesionDecomp.png"])
def test_icon_is_a_transparent_square_of_128_pixels(icon):
    with Image.open(ROOT / icon) as image:
        assert (image.size, image.mode) == ((128, 128), "RGBA")
        assert image.getextrema()[3] == (0, 255)
    ElementTree.parse((ROOT / icon).with_suffix(".svg"))


UI = MODULE / "Resources" / "UI" / "LesionDecomp.ui"


def panel_sources() -> str:
    files = [MODULE / "LesionDecomp.py", *(MODULE / "LesionDecompPanel").glob("*.py")]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def test_panel_names_every_control_with_a_tooltip():
    for widget in ElementTree.parse(UI).iter("widget"):
        is_caption = widget.get("class") == "QLabel" and widget.find("property[@name='wordWrap']") is None
        if widget.get("class") != "qMRMLWidget" and not is_caption:
            tooltip = widget.find("property[@name='toolTip']/string")
            assert tooltip is not None, widget.get("name")
            assert tooltip.text, widget.get("name")


def test_panel_uses_controls_that_exist():
    source = panel_sources()
    tree = ElementTree.parse(UI)
    controls = {widget.get("name") for widget in tree.iter("widget")}
    assert set(re.findall(r"\bui\.(\w+)", source)) <= controls
    parameters = {p.findtext("string") for p in tree.iter("property") if p.get("name") == "SlicerParameterName"}
    declared = set(re.findall(r"^    (\w+): ", source, flags=re.MULTILINE))
    assert parameters <= declared


def test_keyboard_reaches_every_control_of_the_panel():
    tree = ElementTree.parse(UI)
    unfocused = {"QLabel", "QProgressBar", "QWidget", "qMRMLWidget"}
    controls = [w.get("name") for w in tree.iter("widget") if w.get("class") not in unfocused]
    assert [stop.text for stop in tree.iter("tabstop")] == controls  # in the order in which they are seen
    names = {widget.get("name") for widget in tree.iter("widget")}
    texts = [element.text or "" for element in tree.iter("string")]
    shortcuts = re.findall(r"&(\w)", " ".join(texts).lower())
    assert len(shortcuts) == len(set(shortcuts)), "two controls have the same shortcut"
    for label in tree.iter("widget"):
        text = label.findtext("property[@name='text']/string") or ""
        if label.get("class") == "QLabel" and "&" in text:
            assert label.findtext("property[@name='buddy']/cstring") in names, label.get("name")


def test_controls_that_show_nodes_are_given_the_scene():
    tree = ElementTree.parse(UI)
    needing = {w.get("name") for w in tree.iter("widget") if w.get("class").startswith("qMRML")} - {"LesionDecomp"}
    assert {connection.findtext("receiver") for connection in tree.iter("connection")} == needing


def test_every_text_of_the_panel_can_be_translated():
    """Texts that the panel's Python shows go through _(): no bare string is put into a control."""
    bare = re.findall(r"\.(?:text|toolTip|title) = f?[\"'](?![\"'])", panel_sources())
    assert bare == []


def test_sample_offered_in_slicer_is_the_file_that_ships():
    source = (MODULE / "LesionDecomp.py").read_text(encoding="utf-8")
    name = re.search(r'SAMPLE_FILE = .*"(.+)"', source).group(1)
    digest = re.search(r'SAMPLE_SHA256 = "(\w+)"', source).group(1)
    assert hashlib.sha256((MODULE / "Resources" / "SampleData" / name).read_bytes()).hexdigest() == digest


def test_no_label_that_wraps_stands_in_a_form_layout():
    """A form layout keeps the height that such a label had before, and draws it over the row beside it."""
    form = [layout for layout in ElementTree.parse(UI).iter("layout") if layout.get("class") == "QFormLayout"]
    labels = [label for layout in form for label in layout.findall("item/widget[@class='QLabel']")]
    assert [label.get("name") for label in labels if label.findtext("property[@name='wordWrap']/bool") == "true"] == []
