"""Windows of one resolution of a TIFF. Its chunks (tiles or strips) are decoded when a window needs them.

Windows of neighbouring tiles overlap, and do not end where the file's chunks do. So the chunks that were decoded last
are kept, within a fixed budget: without that, each would be decoded three to nine times.
"""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import product
from threading import Lock
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from mitosis.ahead import usable_cores

Pixels = NDArray[np.uint8]

KEPT_BYTES = 96 << 20  # decoded chunks of one resolution
BAND_PX = 12_000  # read bands of this width from top to bottom: two rows of windows and their chunks fit KEPT_BYTES
STRIP_LINES = 1024  # kept of an image in strips, which reach from edge to edge whatever the window
BULK_PX = 4_000_000  # larger windows are read once: several threads decode, nothing is kept
THREADS = min(4, usable_cores())
WHITE = 255


def open_pixels(page: tifffile.TiffPage, handle: tifffile.FileHandle, lock: Lock) -> ChunkedPixels | Pixels:
    """Return a page's pixels, to be sliced as [rows, columns]: mapped into memory where one huge chunk allows it."""
    pixels = ChunkedPixels(page, handle, lock)
    if np.prod(pixels.chunk_shape) * pixels.shape[2] > KEPT_BYTES and page.is_memmappable:
        return np.asarray(handle.memmap_array(page.dtype, pixels.shape, page.dataoffsets[0]))
    return pixels


def band_px(page: tifffile.TiffPage) -> int:
    """Return the width of the bands in which a page is best read: those of strips are as wide as the page."""
    return BAND_PX if page.keyframe.is_tiled else int(page.keyframe.imagewidth)


class ChunkedPixels:
    """One resolution, sliced as [rows, columns] -> (h, w, samples) bytes. Thread-safe.

    A chunk that the file leaves out is white: scanners leave out glass.
    """

    def __init__(self, page: tifffile.TiffPage, handle: tifffile.FileHandle, lock: Lock) -> None:
        """``lock`` guards the position of ``handle``: one for all pages of a file."""
        frame = page.keyframe
        self.shape = (frame.imagelength, frame.imagewidth, frame.samplesperpixel)
        high, wide = (frame.tilelength, frame.tilewidth) if frame.is_tiled else (frame.rowsperstrip, self.shape[1])
        self.chunk_shape = (high if frame.is_tiled else min(high, self.shape[0]), wide)
        self._across = -(-self.shape[1] // self.chunk_shape[1])
        self._where = page.dataoffsets, page.databytecounts
        self._handle, self._file_lock = handle, lock
        self._decode = frame.decode  # made here, because making it is not thread-safe
        tables = {"jpegtables": page.jpegtables, "jpegheader": frame.jpegheader}
        self._tables = {name: value for name, value in tables.items() if value is not None}
        lines = 1 if frame.is_tiled else -(-STRIP_LINES // self.chunk_shape[0]) + 1
        self._capacity = max(lines, KEPT_BYTES // (self.chunk_shape[0] * self.chunk_shape[1] * self.shape[2]))
        self._kept: OrderedDict[int, Future[Pixels]] = OrderedDict()  # the longest unused first
        self._kept_lock = Lock()

    def __getitem__(self, window: tuple[slice, slice]) -> Pixels:
        """Return a window that lies inside the image. Raises whatever the file system and the codec raise."""
        (y1, y2), (x1, x2) = ((part.start, part.stop) for part in window)
        high, wide = self.chunk_shape
        out = np.empty((y2 - y1, x2 - x1, self.shape[2]), np.uint8)
        places = list(product(range(y1 // high, -(-y2 // high)), range(x1 // wide, -(-x2 // wide))))
        bulk = out.shape[0] * out.shape[1] > BULK_PX
        chunk_at = self._read if bulk else self._near

        def fill(place: tuple[int, int]) -> None:
            top, left = place[0] * high, place[1] * wide
            chunk = chunk_at(place[0] * self._across + place[1])
            rows, columns = (max(y1, top), min(y2, top + high)), (max(x1, left), min(x2, left + wide))
            part = chunk[rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left]
            out[rows[0] - y1 : rows[1] - y1, columns[0] - x1 : columns[1] - x1] = part

        if bulk:
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(fill, places))
        else:
            for place in places:
                fill(place)
        return out

    def _near(self, index: int) -> Pixels:
        """Return a chunk from those kept, or decode it; a thread that needs one in the making waits for it."""
        with self._kept_lock:
            chunk = self._kept.get(index)
            if found := chunk is not None:
                self._kept.move_to_end(index)
            else:
                chunk = self._kept[index] = Future()
                while len(self._kept) > self._capacity:
                    self._kept.popitem(last=False)
        if not found:
            try:
                chunk.set_result(self._read(index))
            except BaseException as error:
                with self._kept_lock:
                    self._kept.pop(index, None)
                chunk.set_exception(error)
        return chunk.result()

    def _read(self, index: int) -> Pixels:
        """Read and decode one chunk: (rows, columns, samples), cut by the image's edge or filled up beyond it."""
        offset, count = (numbers[index] for numbers in self._where)
        if not count:
            return np.full((*self.chunk_shape, self.shape[2]), WHITE, np.uint8)
        with self._file_lock:
            self._handle.seek(offset)
            data = self._handle.read(count)
        chunk: Any = self._decode(data, index, _fullsize=True, **self._tables)[0]
        return np.asarray(chunk[0])
