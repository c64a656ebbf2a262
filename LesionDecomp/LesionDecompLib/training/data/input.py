"""How whole CT becomes slices like the released ones: the ``input`` of lesion bundles, and its numbers' origin."""

from __future__ import annotations

from typing import Any

# The released slices are 8-bit under a lung window whose bounds are not stated. Two anchors give the window: healthy
# lung's mode is gray 97 of 255 there and -840 HU on average in LCTSC and COVID-CT-MD lungs; 0.44 % of normal lung
# (vessels) is saturated there, and 0.44 % of LCTSC and COVID-CT-MD lung lies above -60 to -150 HU. Straight lines
# through these and through the quantiles in between end within 60 HU of:
WINDOW_HU = (-1300.0, -150.0)
# Widest lungs measure 160 pixels across in the median released scan and 264 mm in the median LCTSC patient.
PIXEL_MM = 1.6
SIZE = 256
# Mode of healthy lung in the slices: gray 97.
LUNG_MODE_HU = WINDOW_HU[0] + 97 / 255 * (WINDOW_HU[1] - WINDOW_HU[0])
# The slices show no chest wall at the lungs' edge; in whole CT the outermost pixel does.
RIM_PIXELS = 1
# Nor do they show the diaphragm's domes half in, half out of a slice: lung needs lung this far above and below.
RIM_SLAB_MM = 3.0


def slice_input() -> dict[str, Any]:
    """The ``input`` of a lesion bundle's metadata."""
    return {
        "size": [SIZE, SIZE],
        "spacing_mm": PIXEL_MM,
        "hu_window": list(WINDOW_HU),
        "mean": 0.5,
        "std": 0.5,
        "lung_masked": True,
        "lung_mode_hu": round(LUNG_MODE_HU, 1),
        "rim_pixels": RIM_PIXELS,
        "rim_slab_mm": RIM_SLAB_MM,
    }
