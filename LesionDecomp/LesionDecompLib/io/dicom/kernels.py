"""How soft a reconstruction is, by the name of its kernel: sharp ones are noisy, and their edges look like lesions.

Names are those of the scanners' makers: Siemens B30f, Br40, I70f (the higher the number, the sharper), GE SOFT to
EDGE, Philips A to L, Canon (Toshiba) FC01 to FC86.
"""

from __future__ import annotations

import re

UNKNOWN = 50.0
BY_NAME = {
    "SMOOTH": 20.0,
    "SOFT": 20.0,
    "STANDARD": 30.0,
    "STND": 30.0,
    "STD": 30.0,
    "BODY": 30.0,
    "A": 20.0,
    "B": 30.0,
    "C": 45.0,
    "DETAIL": 45.0,
    "CHST": 55.0,
    "CHEST": 55.0,
    "D": 60.0,
    "E": 65.0,
    "L": 65.0,
    "LUNG": 65.0,
    "SHARP": 65.0,
    "BONE": 70.0,
    "BONEPLUS": 75.0,
    "EDGE": 80.0,
    "ULTRA": 80.0,
}
CANON_BONE = range(30, 40)  # FC30 to FC39 are sharper than FC01 to FC29 and FC51 to FC59


def sharpness(kernel: str) -> float:
    """0 the softest, 100 the sharpest; kernels that are not known lie in the middle.

    >>> sharpness("B30f") < sharpness("LUNG") < sharpness("B80s")
    True
    """
    name = kernel.strip().upper().partition("\\")[0]
    if name in BY_NAME:
        return BY_NAME[name]
    if canon := re.fullmatch(r"FC(\d+).*", name):
        number = int(canon.group(1))
        return 65.0 if number in CANON_BONE else float(min(number, 100))
    if numbered := re.match(r"[A-Z]{1,3}(\d{2})", name):
        return float(numbered.group(1))
    word = next((word for word in re.split(r"[^A-Z]+", name) if word in BY_NAME and len(word) > 1), "")
    return BY_NAME.get(word, UNKNOWN)
