"""Looking again: turned outputs come back to where they belong, and the mean is that of the looks."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mitosis.config import Config
from mitosis.errors import BundleError
from mitosis.gpu import Device
from mitosis.network import Batch, Item, Network, Output
from mitosis.pipeline import HALO_PX, detect, load_model, tiles_to_read
from mitosis.slide import open_slide
from mitosis.tiling import Tile
from mitosis.views import STRIDES_PX, HaloedTile, look_again, mean, turned_back

SIDE_PX = 64
CASE = "test/input/interf0/images/histopathology-roi-cropout/synthetic-region.tiff"


def shown(seed: int, side_px: int = SIDE_PX) -> HaloedTile:
    side = side_px + 2 * HALO_PX
    rgb = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return HaloedTile(Tile(0, 0, side_px, (False, False, False, False)), rgb)


class Spot(Network):
    """Sees where its input is brightest in red: the cells there say so, with boxes 40 wide and 20 high."""

    name = "drawn"

    def __init__(self, leaning: float = 0.0) -> None:
        self.leaning, self.seen = leaning, 0

    def map(self, items: Iterable[tuple[Item, Batch]]) -> Iterator[tuple[Item, Output]]:
        for item, batch in items:
            self.seen += 1
            red = batch[0, ..., 0].astype(np.float32)
            y, x = np.unravel_index(np.argmax(red), red.shape)
            grids = []
            for stride in STRIDES_PX:
                grid = np.zeros((5, SIDE_PX // stride, SIDE_PX // stride), np.float32)
                wide, high = (40, 20) if batch[0, 0, 0, 1] == batch[0, -1, -1, 1] == 0 else (20, 40)
                grid[:4, y // stride, x // stride] = x + 0.5, y + 0.5, wide, high
                grid[4, y // stride, x // stride] = 0.5 + self.leaning * (x > y)
                grids.append(grid.reshape(5, -1))
            yield item, np.concatenate(grids, axis=1)[None]


def tile_with_spot(x: int, y: int) -> HaloedTile:
    """Return a black tile with one red pixel; its upper left and lower right corners tell that it lies as it was."""
    rgb = np.zeros((SIDE_PX + 2 * HALO_PX, SIDE_PX + 2 * HALO_PX, 3), np.uint8)
    rgb[HALO_PX + y, HALO_PX + x, 0] = 255
    rgb[HALO_PX, HALO_PX + SIDE_PX - 1, 1] = rgb[HALO_PX + SIDE_PX - 1, HALO_PX, 1] = 9
    return HaloedTile(Tile(0, 0, SIDE_PX, (False, False, False, False)), rgb)


@pytest.mark.parametrize(("x", "y"), [(3, 50), (31, 32), (63, 0), (10, 10)])
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_what_is_seen_in_a_turned_tile_comes_back(x: int, y: int, quarters: int) -> None:
    tile, network = tile_with_spot(x, y), Spot()
    [(_, straight)] = network.map([(0, tile.batch)])
    [(_, turned)] = network.map([(0, np.rot90(tile.batch, quarters, axes=(1, 2)))])
    back = turned_back(turned[0], quarters, SIDE_PX)
    np.testing.assert_allclose(back[:, back[4] > 0], straight[0][:, straight[0][4] > 0])
    np.testing.assert_array_equal(back[4] > 0, straight[0][4] > 0)


@pytest.mark.parametrize("views", [1, 2, 4])
def test_tiles_without_a_candidate_are_not_looked_at_again(views: int) -> None:
    network, tiles = Spot(), [tile_with_spot(x, 20) for x in range(5, 11)]
    firsts = [raw for _, raw in network.map((0, t.batch) for t in tiles)]
    for raw in firsts[::2]:
        raw[0, 4] = 0.19
    network.seen = 0
    found = list(look_again(network, zip(tiles, firsts, strict=True), views, 0.2))
    assert [t is expected for (t, _), expected in zip(found, tiles[1::2], strict=True)] == [True] * 3
    assert network.seen == 3 * (views - 1)
    for (_, raw), first in zip(found, firsts[1::2], strict=True):
        np.testing.assert_allclose(raw[:4, raw[4] > 0.4], first[0][:4, first[0][4] > 0.4])


def test_scores_are_averaged_as_logits() -> None:
    [(_, raw)] = look_again(network := Spot(leaning=0.3), network.map([(t := tile_with_spot(40, 20), t.batch)]), 4, 0.2)
    logit = np.log(0.8 / 0.2)
    assert raw[4].max() == pytest.approx(1 / (1 + np.exp(-logit / 2)))  # two of the four ways round, x is beyond y
    looks = [np.random.default_rng(n).random((5, 7), np.float32) for n in range(2)]
    np.testing.assert_allclose(mean(looks)[:4], (looks[0] + looks[1])[:4] / 2, rtol=1e-6)


def test_further_looks_may_count_for_more() -> None:
    """A share of 1 leaves the first look out; what is left of it is divided among the others alike."""
    looks = [np.random.default_rng(n).random((5, 7), np.float32) for n in range(4)]
    np.testing.assert_allclose(mean(looks, 1.0), mean([looks[1], *looks[1:]], 1.0), rtol=1e-6)
    np.testing.assert_allclose(mean(looks, 0.7)[:4], (0.3 * looks[0] + 0.7 * sum(looks[1:]) / 3)[:4], rtol=1e-6)
    np.testing.assert_allclose(mean(looks, 0.75), mean(looks), rtol=1e-6)
    low, high = (np.full((5, 1), score, np.float32) for score in (0.2, 0.8))
    assert mean([low, high], 0.7)[4] == pytest.approx(1 / (1 + 4**-0.4))
    first, other = Spot(leaning=0.0), Spot(leaning=0.3)  # 40 beyond 20: the first says 0.5, the other turned 0.5, too
    tile = tile_with_spot(20, 40)  # turned by a half, the other says 0.8
    [(_, raw)] = look_again(other, first.map([(tile, tile.batch)]), 2, 0.2, share=0.7)
    assert raw[4].max() == pytest.approx(1 / (1 + 4**-0.7))


@pytest.mark.parametrize("views", [2, 4])
def test_the_first_look_is_repeated_where_it_rounds(views: int) -> None:
    """At tiles with a candidate alone; what the rounding one said there does not count."""
    tiles, exact, further = [tile_with_spot(x, 20) for x in range(5, 11)], Spot(), Spot()
    rounded = [raw for _, raw in Spot().map((0, t.batch) for t in tiles)]
    for raw in rounded[::2]:
        raw[0, 4] = 0.19
    for raw in rounded[1::2]:
        raw[0, 4] *= 0.9
    found = list(look_again(further, zip(tiles, rounded, strict=True), views, 0.2, exact))
    assert [t is expected for (t, _), expected in zip(found, tiles[1::2], strict=True)] == [True] * 3
    assert (exact.seen, further.seen) == (3, 3 * (views - 1))
    assert [raw[4].max() for _, raw in found] == pytest.approx([0.5] * 3)


def test_another_kind_of_network_is_refused() -> None:
    with pytest.raises(BundleError, match="views: 1"):
        turned_back(np.zeros((5, 85), np.float32), 1, SIDE_PX)


class Counting(Network):
    """Counts the tiles that a network sees."""

    def __init__(self, network: Network) -> None:
        self.network, self.name, self.seen = network, network.name, 0

    def map(self, items: Iterable[tuple[Item, Batch]]) -> Iterator[tuple[Item, Output]]:
        def counted() -> Iterator[tuple[Item, Batch]]:
            for item, batch in items:
                self.seen += 1
                yield item, batch

        return self.network.map(counted())


def test_further_looks_are_the_larger_networks(root: Path) -> None:
    """Where the bundle has one: it sees the tiles with a candidate alone, and what it says counts."""
    loaded = load_model(root / "model", device=Device.CPU)
    assert loaded.second_look
    model = replace(loaded, detector=Counting(loaded.detector), second_look=Counting(loaded.second_look))
    with open_slide(root / CASE) as slide:
        found = detect(slide, model)
        alone = detect(slide, replace(loaded, second_look=None))
        total = len(tiles_to_read(slide, model, None))
    first, further = model.detector, model.second_look
    assert isinstance(first, Counting) and isinstance(further, Counting)
    assert first.seen == total
    assert 0 < further.seen <= total * (loaded.config.views - 1)
    assert further.seen % (loaded.config.views - 1) == 0
    assert len(found) != len(alone) or not np.array_equal(found["detector_score"], alone["detector_score"])


def test_a_single_look_loads_no_larger_network(root: Path) -> None:
    assert load_model(root / "model", Device.CPU, Config()).second_look is None


def test_with_the_default_bundle(root: Path) -> None:
    """Four looks at a tile, turned by hand, have the mean that the second look gives."""
    network, tile = load_model(root / "model", config=Config()).detector, shown(7, 512)
    [(_, first)] = network.map([(0, tile.batch)])
    [(_, found)] = look_again(network, [(tile, first)], 4, 0.0)
    looks = []
    for quarters in range(4):
        [(_, raw)] = network.map([(0, np.ascontiguousarray(np.rot90(tile.batch, quarters, axes=(1, 2))))])
        looks.append(turned_back(raw[0], quarters, 512))
    np.testing.assert_array_equal(found, mean(looks))
    assert not np.array_equal(found, first[0])
