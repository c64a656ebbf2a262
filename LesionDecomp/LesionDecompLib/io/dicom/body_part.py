"""Which part of the body a series shows, by the words of its header: the chest, another one, or unknown.

Headers are right about the series' description more often than about the body part examined, and where several parts
are named, the chest is among what is shown.
"""

from __future__ import annotations

import re
import unicodedata
from enum import IntEnum

from .header import DicomSlice


class Shows(IntEnum):
    """What a series shows; the lower, the better for lungs."""

    CHEST = 0
    UNKNOWN = 1
    ANOTHER_PART = 2


CHEST = re.compile(
    r"CHEST|THORA|TORAX|TORACE|LUNG|PULM|POUMON|BRUST|HRCT|\bTHX\b|\bTAP\b|\bCAP\b|胸|肺|груд|легк", re.I
)
OTHERS = re.compile(
    r"HEAD|BRAIN|SKULL|CRANI|CEREBR|KOPF|SCHAD|\bTETE|NECK|HALS\b|\bCOU\b|SINUS|ORBIT|DENTAL|\bJAW|FACE|FACIAL|"
    r"TEMPORAL BONE|ABDOM|\bABD|LIVER|LEBER|KIDNEY|RENAL|PELVI|BECKEN|BASSIN|COLON|PROSTAT|BLADDER|"
    r"\b[CTL]-?SPINE|SPINE|WIRBEL|LUMBAR|LUMBAL|CERVICAL|SACR|HIP\b|KNEE|KNIE|ANKLE|FOOT|HAND\b|WRIST|ELBOW|SHOULDER|"
    r"EXTREM|\bLEG|\bARM\b|FEMUR|TIBIA|CALCANE|头|腹|盆",
    re.I,
)


def shown_by(item: DicomSlice) -> Shows:
    """Which part the series of an image shows."""
    for name in ("description", "body_part", "protocol"):
        text = unicodedata.normalize("NFKD", item.tags[name])
        text = "".join(c for c in text if not unicodedata.combining(c)).replace("_", " ")
        if CHEST.search(text):
            return Shows.CHEST
        if OTHERS.search(text):
            return Shows.ANOTHER_PART
    return Shows.UNKNOWN
