"""How stage 2 does while it trains: on stage 1's candidates of split val, and on patches that training never sees."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mitosis.errors import InputError
from training.data.crops import NEAR_PX, Spot, other_nuclei, plain
from training.data.images import MITOTIC, LabelledWindow, load_frames, load_patches
from training.mine_candidates import FILE_NAME as CANDIDATES
from training.networks.convnext import MitosisClassifier

NO_MITOSIS = -1


def candidate_spots(windows: list[LabelledWindow], run: Path, split: str) -> list[tuple[Spot, int]]:
    """Return stage 1's candidates, each with the number of the mitosis that it shows, over all windows in order.

    ``NO_MITOSIS`` where it shows none. Doubtful ones, with a mitosis at the edge of their crop, are left out.
    """
    mined: dict[str, list[list[float]]] = json.loads((run / CANDIDATES).read_text())[split]
    first = np.cumsum([0, *((window.categories == MITOTIC).sum() for window in windows)])
    spots = []
    for index, rows in mined.items():
        window = windows[int(index)]
        mitoses = window.points[window.categories == MITOTIC]
        for x1, y1, x2, y2, _, near in rows:
            centre = np.array([(x1 + x2) / 2, (y1 + y2) / 2], np.float32)
            distance_px = np.linalg.norm(mitoses - centre, axis=1)
            touching = bool((distance_px < NEAR_PX).any())
            if touching == bool(near):
                number = int(first[int(index)] + np.argmin(distance_px)) if touching else NO_MITOSIS
                spots.append((Spot(window.rgb, centre, max(x2 - x1, y2 - y1), window.origin), number))
    return spots


class Validation:
    """Stage 1's candidates on split val, and the best F1 that a threshold on stage 2's score gives there."""

    def __init__(self, data: Path, run: Path) -> None:
        """Raises InputError where stage 1 found nothing."""
        windows = load_frames(data, "val")
        spots = candidate_spots(windows, run, "val")
        if not spots:
            raise InputError(f"{run / CANDIDATES}: stage 1 found nothing on split val; train it longer, or --start it")
        self.crops = torch.stack([plain(spot) for spot, _ in spots])
        self.shown = np.array([number for _, number in spots])
        self.mitoses = sum(int((w.categories == MITOTIC).sum()) for w in windows)

        patches = load_patches(data, held_out=True)
        mitoses = [Spot(patch.rgb, patch.mitoses_px[0]) for patch in patches]
        nuclei = [spot for patch in patches for spot in other_nuclei(patch)]
        self.patch_crops = [plain(spot) for spot in mitoses + nuclei] if mitoses and nuclei else []
        self.patch_mitoses = len(mitoses)

    def f1(self, model: MitosisClassifier) -> float:
        """Return the best F1 over all thresholds; mitoses that stage 1 missed count as missed."""
        return best_f1(margins(model, self.crops), self.shown, self.mitoses)

    def ranking(self, model: MitosisClassifier) -> float:
        """Return how often a mitosis of a held-out patch scores above another nucleus of such patches, 0..1.

        Many laboratories, easy negatives: what falls here is a stain that the network has not understood. NaN where
        the data has no such patches.
        """
        if not self.patch_crops:
            return float("nan")
        scores = margins(model, torch.stack(self.patch_crops))
        nuclei = np.sort(scores[self.patch_mitoses :])
        return float(np.searchsorted(nuclei, scores[: self.patch_mitoses]).mean() / len(nuclei))


@torch.no_grad()
def margins(model: MitosisClassifier, crops: Tensor) -> NDArray[np.floating]:
    """Return the logit of a mitotic figure less the other, (n,), of crops (n, 3, 64, 64)."""
    device = next(model.parameters()).device
    model.eval()
    found = []
    for batch in torch.split(crops, 256):
        with torch.autocast(device.type, torch.bfloat16):
            logits = model(batch.to(device).contiguous(memory_format=torch.channels_last))
        found.append((logits[:, 1] - logits[:, 0]).float().cpu())
    model.train()
    return np.asarray(torch.cat(found).numpy())


def best_f1(scores: NDArray[np.floating], shown: NDArray[np.integer], mitoses: int) -> float:
    """Return max over thresholds of 2 TP / (kept + mitoses).

    Args:
        scores: (n,) of the candidates.
        shown: (n,) number of the mitosis that each shows, or ``NO_MITOSIS``; a second candidate of one is no hit.
        mitoses: how many there are, those without a candidate included.

    """
    order = np.argsort(-scores, kind="stable")
    ranked = shown[order]
    is_first = np.zeros(len(ranked), bool)
    is_first[np.unique(ranked, return_index=True)[1]] = True
    tp = np.cumsum(is_first & (ranked != NO_MITOSIS))
    return float(np.max(2 * tp / (np.arange(1, len(tp) + 1) + mitoses), initial=0.0))
