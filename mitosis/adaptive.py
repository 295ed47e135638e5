"""An operating point that follows the slide: the threshold moves with how strongly it is stained and what it shows.

Mitoses of a pale slide score lower than those of a dark one, so one threshold for all finds too few here or too many
there. The bundle's ``adaptive`` part is a linear model of few numbers, learnt by ``training.adapt_threshold``:

    logit(threshold) = logit(configured threshold) + sum of weight * (feature - mean) / scale

Off unless asked for. The published probabilities do not change, only where they are cut.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from mitosis.bundle import Adaptive, Bundle, FeatureName
from mitosis.errors import BundleError
from mitosis.pipeline import Model
from mitosis.slide import Slide
from mitosis.stain import OD_OF_BYTE, stains
from mitosis.tissue import coarse_picture, is_tissue

SAMPLES = 1_000_000  # tissue pixels that are measured at the most, evenly spread
PALE = 0.5  # of the median optical density: necrosis, oedema, mucus


def slide_features(slide: Slide) -> dict[FeatureName, float]:
    """Measure a slide in the coarse picture that its tissue is sought in.

    ``haematoxylin`` and ``eosin`` are the tissue's median amounts, ``darkest`` the 99th percentile of its optical
    density summed over the channels; ``tissue_share`` is of the slide, ``pale_share`` of the tissue. All are 0 where
    there is no tissue. Raises InputError where the slide cannot be decoded.
    """
    rgb, _ = coarse_picture(slide)
    mask = is_tissue(rgb)
    tissue = rgb[mask]  # (n, 3)
    if len(tissue) == 0:
        return {"haematoxylin": 0.0, "eosin": 0.0, "darkest": 0.0, "tissue_share": 0.0, "pale_share": 0.0}
    tissue = tissue[:: -(-len(tissue) // SAMPLES)]
    haematoxylin, eosin, _ = np.median(stains(tissue), axis=0)
    density = OD_OF_BYTE[tissue].sum(axis=1)
    return {
        "haematoxylin": float(haematoxylin),
        "eosin": float(eosin),
        "darkest": float(np.quantile(density, 0.99)),
        "tissue_share": float(mask.mean()),
        "pale_share": float((density < PALE * np.median(density)).mean()),
    }


def adapted_threshold(threshold: float, features: dict[FeatureName, float], part: Adaptive) -> float:
    """Return the threshold of a slide with these features; ``threshold`` is that of a slide at all their means."""
    if threshold in (0, 1):  # everything or nothing is wanted, on every slide
        return threshold
    logit = math.log(threshold / (1 - threshold))
    for name, about in part.features.items():
        logit += about.weight * part.standardised(name, features[name])
    return 1 / (1 + math.exp(-logit))


def adaptive_part(bundle: Bundle) -> Adaptive:
    """Return the bundle's adaptive part; raises BundleError where it has none."""
    if bundle.description.adaptive is None:
        raise BundleError(
            f"{bundle.folder}: this bundle has no adaptive threshold; leave --adaptive-threshold out, or learn one "
            "with `python -m training.adapt_threshold`"
        )
    return bundle.description.adaptive


def adapted(model: Model, slide: Slide) -> Model:
    """Return the model with the slide's own threshold; raises BundleError, InputError."""
    part = adaptive_part(model.bundle)
    threshold = adapted_threshold(model.config.classifier_threshold, slide_features(slide), part)
    return replace(model, config=model.config.model_copy(update={"classifier_threshold": round(threshold, 4)}))
