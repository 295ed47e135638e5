"""Optical density and stains: how much haematoxylin and eosin a pixel holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Ruifrok & Johnston 2001: optical density (R, G, B) of haematoxylin, eosin and the residual stain, one a row.
HED_FROM_RGB = np.linalg.inv(np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]]))
RGB_FROM_HED = np.linalg.inv(HED_FROM_RGB)
OD_OF_BYTE = (-np.log((np.arange(256) + 1.0) / 256.0)).astype(np.float32)


def stains(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the amounts of haematoxylin, eosin and residual: (..., 3) bytes -> (..., 3), in units of their vectors."""
    return np.asarray(OD_OF_BYTE[rgb] @ HED_FROM_RGB.astype(np.float32))
