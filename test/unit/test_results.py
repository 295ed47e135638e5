"""Many slides, one after the other: what a failed one leaves behind."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mitosis.errors import SpacingError
from mitosis.pipeline import load_model
from mitosis.results import Options, attempt


def test_a_failed_slide_is_not_held_until_the_end(root: Path, tmp_path: Path) -> None:
    """The error is kept for the table at the end; its traceback would keep the decoded picture."""
    Image.fromarray(np.full((300, 300, 3), 200, np.uint8)).save(tmp_path / "a.png")
    summary = attempt(tmp_path / "a.png", tmp_path / "out", load_model(root / "model"), Options(), False)
    error = summary.error
    assert isinstance(error, SpacingError)
    assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)
    with pytest.raises(SpacingError, match=r"a\.png.*--spacing"):
        raise error
