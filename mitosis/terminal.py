"""How the commands speak: progress and messages on stderr, and on failure one last line that says what to do."""

from __future__ import annotations

import logging
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, Self

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mitosis.errors import MemoryFullError, MitosisError
from mitosis.memory import is_exhausted, message

TERMINATED = 128 + signal.SIGTERM

log = logging.getLogger(__name__)
console = Console(stderr=True, markup=False, emoji=False)  # brackets and colons in names are not commands


def progress_bar() -> Progress:
    """Return a bar with a count and the time left, on stderr."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)


class SlideProgress:
    """Bars for slides and for the tiles of the slide at hand, with the time left; on a file or pipe, a line a slide.

    The slides' bar moves on with the tiles, so that its time left is known before the first slide is done.
    """

    def __init__(self, slides: int) -> None:
        self._bar = progress_bar()
        self._slides = self._bar.add_task("slides", total=slides)
        self._tiles = self._bar.add_task("tiles", total=None)
        self._done, self._number = 0, slides

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, name: str) -> Callable[[int, int], None]:
        """Start a slide; returns what is told of its tiles: how many are done, of how many."""
        self._bar.reset(self._tiles, total=None, description=name)

        def tell(done: int, total: int) -> None:
            self._bar.update(self._tiles, completed=done, total=total)
            self._bar.update(self._slides, completed=self._done + done / max(total, 1))

        return tell

    def finish(self, line: str, failed: bool) -> None:
        """End a slide, saying what it came to."""
        self._done += 1
        self._bar.update(self._slides, completed=self._done)
        log.log(logging.ERROR if failed else logging.INFO, "%d/%d %s", self._done, self._number, line)


class Terminated(SystemExit):
    """SIGTERM came. No kind of Exception, so that nothing on the way takes it for a slide's failure."""


def set_up_logging(debug: bool) -> None:
    """Send log records to stderr."""
    handler = RichHandler(console=console, show_path=False, show_time=False)
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, format="%(message)s", handlers=[handler])
    for noisy in ("tifffile", "PIL", "h5py", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)


def run_command(command: Callable[[], None], debug: bool) -> None:
    """Run a command; on failure end the process with the error's code and its message as the last line on stderr.

    ``debug`` adds the traceback above that line. SIGTERM ends the command like an interrupt, so that temporary files
    are removed.
    """

    def terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise Terminated(TERMINATED)  # its code holds wherever a second one arrives

    signal.signal(signal.SIGTERM, terminate)
    set_up_logging(debug)
    try:
        command()
    except MitosisError as error:
        fail(str(error), error.exit_code, debug)
    except KeyboardInterrupt:
        fail("interrupted; results finished so far are kept", 128 + signal.SIGINT, debug)
    except Terminated:
        fail("terminated; results finished so far are kept", TERMINATED, debug)
    except Exception as error:
        if is_exhausted(error):
            fail(message(), MemoryFullError.exit_code, debug)
        fail(
            f"unexpected {type(error).__name__}: {' '.join(str(error).split())}; run with --debug and report it",
            70,
            debug,
        )


def fail(message: str, code: int, debug: bool) -> NoReturn:
    """Print the message as the last line and exit."""
    if debug:
        traceback.print_exc()
    sys.stderr.write(f"error: {message}\n")
    sys.stderr.flush()
    raise SystemExit(code)
