"""The 27 coarse classes of COCO-Stuff, made by IIC (Ji et al., ICCV 2019) and used by PiCIE (Cho et al., CVPR 2021).

Raw masks hold 0 to 90 for things (COCO id - 1), 91 to 181 for stuff, 255 for unlabelled. The table below was compared
with the one in STEGO's public code (it has no file for it, PiCIE loads it from a pickle) and its names with IIC's.
PiCIE's geometry (its test script says 320): short side to 320, PIL bilinear / nearest, centre crop of 320x320.
"""

from __future__ import annotations

COARSE_CLASSES = (
    "electronic", "appliance", "food", "furniture", "indoor", "kitchen", "accessory", "animal", "outdoor", "person",
    "sports", "vehicle",
    "ceiling-stuff", "floor-stuff", "food-stuff", "furniture-stuff", "rawmaterial-stuff", "textile-stuff",
    "wall-stuff", "window-stuff", "building-stuff", "ground-stuff", "plant-stuff", "sky-stuff", "solid-stuff",
    "structural-stuff", "water-stuff",
)  # fmt: skip
UNLABELLED = 255

# (coarse class, how many raw values in a row have it): things come sorted by their superclass
_THINGS = ((9, 1), (11, 8), (8, 6), (7, 10), (6, 8), (10, 10), (5, 8), (2, 10), (3, 10), (0, 6), (1, 6), (4, 8))
# coarse class of raw value 91, 92, ... 181: stuff comes in alphabetical order
_STUFF = (
    17, 17, 22, 20, 20, 22, 15, 25, 16, 13, 12, 12, 17, 17, 23, 15, 15, 17, 15, 21, 15, 25, 13, 13, 13, 13, 13, 22, 26,
    14, 14, 15, 22, 21, 21, 24, 20, 22, 15, 17, 16, 15, 22, 24, 21, 17, 25, 16, 21, 17, 22, 16, 21, 21, 25, 21, 26, 21,
    24, 20, 17, 14, 21, 26, 15, 23, 20, 21, 24, 15, 24, 22, 25, 15, 20, 17, 17, 22, 14, 18, 18, 18, 18, 18, 18, 18, 26,
    26, 19, 19, 24,
)  # fmt: skip

# raw value 0 to 181 -> coarse class 0 to 26
FINE_TO_COARSE = (*(coarse for coarse, count in _THINGS for _ in range(count)), *_STUFF)
