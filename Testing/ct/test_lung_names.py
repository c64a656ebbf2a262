"""Lungs are known by their names in many languages, and by number only where that is unmistakable."""

from __future__ import annotations

import pytest
from LesionDecompLib.ct.lung_names import lung_labels, lung_side
from LesionDecompLib.errors import InputError

RIGHT = """
right lung|Right Lung|lung_r|RightLung|Lung_R 2|RUL|rt lung|lung_middle_lobe_right|rechte Lunge|Lunge rechts|
poumon droit|pulmón derecho|pulmão direito|polmone destro|pulmo dexter|rechterlong|rechter long|höger lunga|
højre lunge|høyre lunge|oikea keuhko|prawe płuco|pravá plíce|jobb tüdő|sağ akciğer|правое лёгкое|права легеня|
десен бял дроб|δεξιός πνεύμονας|右肺|右肺下葉|오른쪽 폐|الرئة اليمنى|ریه راست|ריאה ימנית|दायां फेफड़ा|paru kanan|
phổi phải|ปอดขวา|plămânul drept|desno pluće|kopsud parem
"""
LEFT = """
left lung|LungLeft|lung_l|LLL|lung_upper_lobe_left|linke Lunge|Lunge li|poumon gauche|pulmón izquierdo|
pulmão esquerdo|polmone sinistro|linkerlong|vänster lunga|venstre lunge|vasen keuhko|lewe płuco|levá plíce|bal tüdő|
sol akciğer|левое легкое|ліва легеня|αριστερός πνεύμονας|左肺|왼쪽 폐|الرئة اليسرى|ریه چپ|ריאה שמאלית|
बायाँ फेफड़ा|paru kiri|phổi trái|ปอดซ้าย|plămân stâng|lijevo pluće
"""
BOTH = """
lung|Lungs|Lungen|poumons|pulmones|polmoni|longen|płuca|plíce|akciğerler|лёгкие|肺|폐|फेफड़ा|paru-paru|
right and left lung
"""
NONE = """
heart|liver|rib_left_1|Segment_1|lesion|trachea|lung_vessels|lung_trachea_bronchia|lung nodule|Lung tumor|
pulmonary_vein|pulmonary artery|pleural effusion|left atrium|longissimus|autochthon_left|kidney_right|spinal cord|
GTV lung|Lunge ohne Gefäße und Tumor|bal|sol|right|mediastinum|Rippe rechts|肝|간|
"""


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split("|") if name.strip()]


@pytest.mark.parametrize("text, side", [(RIGHT, 1), (LEFT, 2), (BOTH, 0), (NONE, None)])
def test_names(text, side):
    assert {name: lung_side(name) for name in names(text)} == dict.fromkeys(names(text), side)


def test_numbers_alone_are_not_guessed():
    assert lung_labels([1], {}, None, "Mask") == {1: 0}
    assert lung_labels([255], {}, None, "Mask") == {255: 0}
    assert lung_labels([1, 2], {}, None, "Mask") == {1: 1, 2: 2}
    for values in ([1, 2, 3], [3, 4], [10, 11, 12, 13, 14]):
        with pytest.raises(InputError, match="Choose the labels") as error:
            lung_labels(values, {}, None, "Mask")
        assert error.value.code == "mask_labels" and all(str(value) in error.value.found for value in values)


def test_names_win_over_numbers_and_a_choice_over_both():
    names = {1: "left lung", 2: "right lung", 3: "heart"}
    assert lung_labels([1, 2, 3], names, None, "Mask") == {1: 2, 2: 1}
    assert lung_labels([1, 3], names, [3], "Mask") == {3: 0}
    assert lung_labels([1, 2], names, range(1, 3), "Mask") == {1: 2, 2: 1}


def test_a_long_list_is_cut():
    with pytest.raises(InputError, match="and 88 more"):
        lung_labels(range(1, 101), {}, None, "Mask")
