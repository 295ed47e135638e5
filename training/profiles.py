"""Named settings of both training loops: the paper's, for a machine with GPUs, and ours, for an hour of CPU."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClassifierProfile:
    """How stage 2 is trained. Samples are drawn with balanced classes; an epoch is ``epoch_samples`` of them."""

    batch: int
    learning_rates: tuple[float, float]  # cosine from the first to the last
    weight_decay: float
    warm_up_steps: int
    epochs: int  # upper limit; --hours may end the run sooner, and the schedule fits whichever is shorter
    epoch_samples: int
    patience: int  # epochs without a better validation F1 before the run stops
    turn_deg: float  # rotation within +- this; a mitosis has no up
    shift_px: float  # stage 1's boxes are not perfectly centred
    colour: float  # strength of the stain jitter
    mixup: float  # share of batches that are mixed
    erasing: float  # probability of blanking a rectangle
    erasing_area: tuple[float, float]
    contrastive: float  # lambda of equation 1
    drop_path: float


#: Section "Training" of the paper. Its ColorJitter and RandAugment become stain jitter of the same purpose.
PAPER_CLASSIFIER = ClassifierProfile(
    batch=960,
    learning_rates=(3e-4, 1e-6),
    weight_decay=1e-5,
    warm_up_steps=100,
    epochs=400,
    epoch_samples=48_000,
    patience=60,
    turn_deg=15.0,
    shift_px=0.0,
    colour=0.6,
    mixup=0.2,
    erasing=0.5,
    erasing_area=(0.02, 0.15),
    contrastive=1.0,
    drop_path=0.1,
)

#: A few thousand steps must do: a higher rate, no regularisers that only pay in long runs.
CPU_CLASSIFIER = ClassifierProfile(
    batch=128,
    learning_rates=(1.5e-3, 1e-6),
    weight_decay=0.02,
    warm_up_steps=100,
    epochs=400,
    epoch_samples=25_600,
    patience=60,
    turn_deg=180.0,
    shift_px=4.0,
    colour=0.7,
    mixup=0.0,
    erasing=0.0,
    erasing_area=(0.02, 0.1),
    contrastive=0.5,
    drop_path=0.0,
)

CLASSIFIER_PROFILES = {"paper": PAPER_CLASSIFIER, "cpu": CPU_CLASSIFIER}
