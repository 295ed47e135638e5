"""Named settings of both training loops: the paper's, for eight GPUs, and ours, for hours of CPU or minutes of GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class TileMix:
    """Shares of the kinds of tile; what is left of 1 is single windows."""

    patches: float  # mosaics of patches: the only way to see more than 200 cases
    mosaic: float  # the paper's mosaic of four windows; single ones once the epochs of mosaics are over
    labelled: float  # of the windows, in mosaics and alone: around a labelled object; the others around any point
    mitotic_share: float = 0.6  # of the labelled objects drawn; the rest are look-alikes


@dataclass(frozen=True)
class DetectorProfile:
    """How stage 1 is trained. An epoch is ``epoch_tiles`` drawn tiles."""

    batch: int  # over all processes
    learning_rates: tuple[float, float]  # cosine from the first to the last
    weight_decay: float
    warm_up_steps: int
    epochs: int  # upper limit; --hours may end the run sooner, and the schedule fits whichever is shorter
    epoch_tiles: int
    mosaic_epochs: int  # the share of mosaics goes to single windows afterwards
    mix: TileMix
    small_tile_share: float  # of the run, on tiles of 320 px: as many objects for 40 % of the arithmetic
    colour: float  # strength of the stain jitter
    mixup: float  # probability of blending in a second tile, with its boxes
    rand_augment: bool  # photometric operations of RandAugment at its default strength
    erasing: float  # probability of blanking a rectangle
    erasing_area: tuple[float, float]
    box_gain: float
    class_gain: float


#: Section "Training" of the paper: tiles as `prepare_data` cut them, with an object or without.
#: RandAugment's shears and shifts, which torchvision has not for boxes, are left to every tile's turns and scales.
PAPER_DETECTOR = DetectorProfile(
    batch=960,
    learning_rates=(1e-3, 1e-5),
    weight_decay=5e-4,
    warm_up_steps=100,
    epochs=300,
    epoch_tiles=48_000,
    mosaic_epochs=20,
    mix=TileMix(patches=0.0, mosaic=1.0, labelled=0.0),
    small_tile_share=0.0,
    colour=0.0,
    mixup=0.3,
    rand_augment=True,
    erasing=0.4,
    erasing_area=(0.02, 0.1),
    box_gain=7.5,
    class_gain=0.5,
)

#: Hours of CPU, five labelled cases and patches of two hundred more. The loss gains are turned round, since every box
#: is 50 px and only the class is in doubt.
CPU_DETECTOR = DetectorProfile(
    batch=16,
    learning_rates=(1e-3, 1e-5),
    weight_decay=5e-4,
    warm_up_steps=50,
    epochs=300,
    epoch_tiles=4_800,
    mosaic_epochs=300,
    mix=TileMix(patches=0.4, mosaic=0.0, labelled=0.75, mitotic_share=0.6),
    small_tile_share=0.8,
    colour=1.0,
    mixup=0.0,
    rand_augment=False,
    erasing=0.0,
    erasing_area=(0.02, 0.1),
    box_gain=4.0,
    class_gain=1.5,
)

#: A quarter of an hour of one GPU on the same data: some twenty times the steps' tiles, so larger batches, and more
#: variation against learning the five cases by heart.
GPU_DETECTOR = replace(
    CPU_DETECTOR,
    batch=64,
    learning_rates=(2e-3, 1e-5),
    warm_up_steps=300,
    epoch_tiles=48_000,
    small_tile_share=0.6,
    colour=1.2,
    mixup=0.1,
)

DETECTOR_PROFILES = {"paper": PAPER_DETECTOR, "cpu": CPU_DETECTOR, "gpu": GPU_DETECTOR}


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
    keep_last: bool  # the last averaged weights rather than those of the best epoch by validation F1
    turn_deg: float  # rotation within +- this; a mitosis has no up
    shift_px: float  # stage 1's boxes are not perfectly centred
    colour: float  # strength of the stain jitter, and whether sharpness varies
    colour_jitter: tuple[float, float, float]  # of brightness, contrast and saturation
    rand_augment: tuple[int, int]  # operations of RandAugment and their magnitude
    mixup: float  # share of batches that are mixed
    erasing: float  # probability of blanking a rectangle
    erasing_area: tuple[float, float]
    contrastive: float  # lambda of equation 1
    drop_path: float


#: Section "Training" of the paper.
PAPER_CLASSIFIER = ClassifierProfile(
    batch=960,
    learning_rates=(3e-4, 1e-6),
    weight_decay=1e-5,
    warm_up_steps=100,
    epochs=400,
    epoch_samples=48_000,
    patience=60,
    keep_last=False,
    turn_deg=15.0,
    shift_px=0.0,
    colour=0.0,
    colour_jitter=(0.2, 0.2, 0.1),
    rand_augment=(3, 5),
    mixup=0.2,
    erasing=0.5,
    erasing_area=(0.02, 0.15),
    contrastive=1.0,
    drop_path=0.1,
)

#: An hour of CPU must do: a higher rate, no mixup. 39 validation mitoses cannot tell epochs apart, so the last is kept.
CPU_CLASSIFIER = ClassifierProfile(
    batch=128,
    learning_rates=(1.5e-3, 1e-6),
    weight_decay=0.05,
    warm_up_steps=100,
    epochs=400,
    epoch_samples=25_600,
    patience=400,
    keep_last=True,
    turn_deg=180.0,
    shift_px=4.0,
    colour=1.0,
    colour_jitter=(0.0, 0.0, 0.0),
    rand_augment=(0, 0),
    mixup=0.0,
    erasing=0.2,
    erasing_area=(0.02, 0.1),
    contrastive=0.5,
    drop_path=0.0,
)

#: As above. Mixup and dropped paths, which an hour of CPU has no time for.
GPU_CLASSIFIER = replace(CPU_CLASSIFIER, batch=256, colour=1.2, mixup=0.2, drop_path=0.1)

CLASSIFIER_PROFILES = {"paper": PAPER_CLASSIFIER, "cpu": CPU_CLASSIFIER, "gpu": GPU_CLASSIFIER}
