"""Which of a labelmap's structures are lungs, and of which side: by their names in many languages, or by number."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping

from ..errors import InputError
from .anatomy import LEFT_LUNG, RIGHT_LUNG

RIGHT, LEFT, UNKNOWN = RIGHT_LUNG.label, LEFT_LUNG.label, 0
NAMED = 12  # in a message

# Beginnings of words, in lower case and without accents. In scripts that put no space between words, parts of them.
LUNG_STEMS = (
    "lung", "pulmo", "pulma", "pneumon", "poumon", "polmon", "keuhko", "pluc", "plic", "tudo", "akcig", "legk",
    "plauc", "plaus", "pljuc", "kops", "paru", "plaman", "linkerlong", "rechterlong",
    "легк", "леген", "плућ", "πνευμ", "ריא", "رئ", "ریه", "ريه", "फेफड", "ปอด", "肺", "폐", "허파",
)  # fmt: skip
LUNG_PHRASES = ("long", "longen", "longkwab", "phoi", "бял дроб", "белите дробове", "бели дробове")  # whole words
NOT_LUNG_STEMS = (
    "vessel", "nodul", "tumo", "lesion", "mass", "airway", "trache", "bronch", "arter", "vein", "vena", "venen",
    "venos", "venou", "vascul", "fissur", "effusi", "opaci", "infiltr", "covid", "consolid", "ground", "ggo", "embol",
    "trunk", "valve", "cancer", "carcino", "metasta", "pleur", "fibros", "emphys", "thrombus", "hilum", "hilar",
    "gefass", "knoten", "herd", "gtv", "ctv", "ptv", "itv", "outside", "without", "exclu",
)  # fmt: skip
RIGHT_STEMS = (
    "right", "recht", "droit", "derech", "direit", "destr", "dext", "dx", "hoger", "hojre", "høyre", "højre", "hoyre",
    "oike", "praw", "prav", "jobb", "sag", "desn", "drept", "kanan", "desin", "parem", "прав", "дясн", "дес", "δεξ",
    "ימ", "ימני", "يم", "أيم", "راست", "दाय", "दाह", "ขวา", "右", "우", "오른",
)  # fmt: skip
LEFT_STEMS = (
    "left", "link", "gauch", "izquier", "esquer", "sinist", "sx", "sin", "vanst", "venst", "vase", "vasak", "lew",
    "lev", "ljev", "lijev", "bal", "sol", "stang", "kiri", "kair", "kreis", "лев", "лів", "ляв", "αριστ",
    "שמ", "يس", "أيس", "چپ", "बाय", "ซ้าย", "左", "좌", "왼",
)  # fmt: skip
RIGHT_WORDS = ("r", "rt", "re", "rl", "rul", "rml", "rll", "phai")
LEFT_WORDS = ("l", "lt", "li", "ll", "lul", "lll", "trai")
LOBES = ("rul", "rml", "rll", "lul", "lll")  # upper, middle and lower lobe of a side, as radiologists abbreviate them
SPACELESS = 0x0E00  # scripts from here on, Thai and those of East Asia, put no space between words


def lung_side(name: str) -> int | None:
    """Which lung, or part of which lung, a structure's name stands for.

    :return: 1 right, 2 left, 0 a lung of no or of both sides; None where the name is none of a lung (vessels, nodules
        and airways of the lung are not).

    >>> [lung_side(name) for name in ("lung_upper_lobe_left", "Rechte Lunge", "poumons", "左肺", "lung_vessels", "rib")]
    [2, 1, 0, 2, None, None]
    """
    words = _words(name)
    text = f" {' '.join(words)} "
    is_lung = _has(words, LUNG_STEMS, LOBES) or any(f" {phrase} " in text for phrase in LUNG_PHRASES)
    if not is_lung or _has(words, NOT_LUNG_STEMS):
        return None
    right, left = _has(words, RIGHT_STEMS, RIGHT_WORDS), _has(words, LEFT_STEMS, LEFT_WORDS)
    return UNKNOWN if right == left else RIGHT if right else LEFT


def lung_labels(
    values: Collection[int], names: Mapping[int, str], chosen: Collection[int] | None, stage: str
) -> dict[int, int]:
    """Which labels of a mask are lungs, and the side that each stands for.

    Those asked for; else those that are called lung; of a mask without names its only label, or 1 (right) and 2
    (left). What a number stands for is not guessed.

    :param values: labels in the mask, without 0.
    :param names: of labels, as far as they are known.
    :param chosen: labels asked for; None where nobody asked.
    :return: label -> 1 right, 2 left, 0 to be seen from where it lies.
    :raises LesionDecompError: naming what is there, where none of it is known to be lung.

    >>> lung_labels({5, 10, 12}, {5: "liver", 10: "lung_upper_lobe_left", 12: "lung_upper_lobe_right"}, None, "Mask")
    {10: 2, 12: 1}
    """
    present = sorted(values)
    known = {value: names[value] for value in present if names.get(value, "").strip()}
    if chosen is not None:
        taken = [value for value in present if value in chosen]
        if not taken:
            wanted = _listed([str(value) for value in sorted(chosen)])
            raise InputError(
                stage, f"a mask with {_described(present, known)}", f"one of the labels {wanted}", code="mask_labels"
            )
        sides = {value: lung_side(known.get(value, "")) or UNKNOWN for value in taken}
        return {1: RIGHT, 2: LEFT} if taken == [1, 2] and not any(sides.values()) else sides
    if known:
        found = {value: side for value, name in known.items() if (side := lung_side(name)) is not None}
        if found:
            return found
        raise InputError(
            stage,
            f"a mask with {_described(present, known)}",
            "a structure that is called lung",
            "Name the lungs so, or choose the labels that are lung.",
            remedy="lung_labels",
            code="mask_without_lung",
        )
    if len(present) == 1:
        return {present[0]: LEFT if present == [LEFT] else UNKNOWN}
    if present == [1, 2]:
        return {1: RIGHT, 2: LEFT}
    raise InputError(
        stage,
        f"a mask with {_described(present, known)}",
        "one label for lung, or 1 (right) and 2 (left)",
        "Choose the labels that are lung.",
        remedy="lung_labels",
        code="mask_labels",
    )


def _words(name: str) -> list[str]:
    """The words of a name in lower case, without accents, parted also where an upper-case letter begins one."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.replace("ł", "l").replace("Ł", "L"))
    plain = unicodedata.normalize("NFKD", parted.replace("ı", "i").replace("đ", "d")).casefold()
    # Accents of Latin letters, and those of Greek and Cyrillic ones, go; in other scripts such signs are letters.
    plain = "".join(c for c in plain if not 0x300 <= ord(c) < 0x370)
    words = re.split(r"[^\w\u0900-\u0DFF\u0E00-\u0E7F]+|_|(?<=[^\W\d])(?=\d)", unicodedata.normalize("NFC", plain))
    return [word.removeprefix("ال") for word in words if word]


def _has(words: list[str], stems: tuple[str, ...], short: tuple[str, ...] = ()) -> bool:
    """Whether one of the words begins so, or is one of the short ones."""
    inside = [stem for stem in stems if ord(stem[0]) >= SPACELESS]
    return any(word in short or word.startswith(stems) or any(stem in word for stem in inside) for word in words)


def _described(values: list[int], names: Mapping[int, str]) -> str:
    if not values:
        return "no label"
    if names:
        return f"the structures {_listed([f'{value} {names[value]}' for value in values if value in names])}"
    return f"the label{'s' if len(values) > 1 else ''} {_listed([str(value) for value in values])}"


def _listed(texts: list[str]) -> str:
    more = f" and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    return ", ".join(texts[:NAMED]) + more
