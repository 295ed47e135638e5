"""Tiles cover every pixel, never reach outside, and overlap enough."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mitosis.tiling import tile_starts, tiles

LENGTHS = st.integers(1, 5000)


@given(LENGTHS, st.sampled_from([64, 512]), st.floats(0, 0.8))
def test_every_pixel_is_covered_and_overlap_holds(length_px: int, tile_px: int, overlap: float) -> None:
    starts = tile_starts(length_px, tile_px, overlap)
    assert starts[0] == 0
    assert all(start >= 0 for start in starts)
    assert starts[-1] + tile_px >= length_px
    assert starts == sorted(set(starts))
    for first, second in pairwise(starts):
        assert first + tile_px - second >= overlap * tile_px
    if length_px >= tile_px:
        assert starts[-1] + tile_px == length_px


def test_paper_layout_of_a_challenge_region() -> None:
    assert tile_starts(1330, 512, 0.2) == [0, 409, 818]
    assert len(list(tiles(7215, 5412, 512, 0.2))) == 18 * 13


@given(LENGTHS, LENGTHS)
def test_inner_edges_are_those_with_image_beyond(width_px: int, height_px: int) -> None:
    for tile in tiles(width_px, height_px, 512, 0.2):
        left, top, right, bottom = tile.inner
        assert (left, top) == (tile.x_px > 0, tile.y_px > 0)
        assert (right, bottom) == (tile.x_px + 512 < width_px, tile.y_px + 512 < height_px)
