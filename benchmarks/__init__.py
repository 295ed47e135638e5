"""What it costs, and against what: every claim of speed is a command of this folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "test"))  # its tissue is drawn by what draws the test case
