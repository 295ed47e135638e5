"""The platform's invoke mode over loopback, with cases that are slow, broken or unexpected."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from mitosis.errors import (
    BundleError,
    InputError,
    MemoryFullError,
    OutputError,
    RuntimeUnavailableError,
    SpacingError,
)
from mitosis.output.grand_challenge import InvalidDocumentError
from mitosis.serving import CaseServer


@contextmanager
def served(process: Callable[[], None]) -> Iterator[str]:
    server = CaseServer(process, port=0)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.port}"


def ask(url: str, method: str = "GET") -> tuple[int, dict[str, str]]:
    """Return status and content."""
    try:
        with urlopen(Request(url, method=method, data=b"{}" if method == "POST" else None), timeout=30) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)


def raising(error: Exception) -> Callable[[], None]:
    def process() -> None:
        raise error

    return process


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (InputError("a.tiff: is truncated"), 422, "a.tiff: is truncated"),
        (SpacingError("a.tiff: states no spacing"), 422, "a.tiff: states no spacing"),
        (MemoryFullError("a.tiff: the memory is full"), 500, "a.tiff: the memory is full"),
        (OutputError("/output: cannot be written"), 500, "/output: cannot be written"),
        (BundleError("model: damaged"), 500, "model: damaged"),
        (RuntimeUnavailableError("no GPU"), 500, "no GPU"),
        (InvalidDocumentError("not finite"), 500, "unexpected InvalidDocumentError: not finite"),
        (MemoryError(), 500, "the memory is full"),
        (ValueError("a bug"), 500, "unexpected ValueError: a bug"),
    ],
)
def test_a_failing_case_is_answered_and_the_next_one_served(error: Exception, status: int, reason: str) -> None:
    with served(raising(error)) as address:
        for _ in range(2):
            found, content = ask(f"{address}/invoke", "POST")
            assert found == status
            assert content["error"].startswith(reason)
        assert ask(f"{address}/health") == (200, {})


def test_during_a_case_health_is_answered_and_another_case_refused() -> None:
    """A queued case, whose client may have gone, would remove the result of the one before."""
    may_end, begun, answers = Event(), [0], []

    def process() -> None:
        begun[0] += 1
        assert may_end.wait(30)

    with served(process) as address:
        client = Thread(target=lambda: answers.append(ask(f"{address}/invoke", "POST")))
        client.start()
        while not begun[0]:
            time.sleep(0.01)
        assert ask(f"{address}/health") == (200, {})
        status, content = ask(f"{address}/invoke", "POST")
        assert (status, content["error"][:12]) == (503, "another case")
        assert answers == []
        may_end.set()
        client.join(30)
        assert answers == [(201, {})]
        assert ask(f"{address}/invoke", "POST") == (201, {})  # the next one is welcome at once
    assert begun == [2]


def test_a_client_that_gives_up_disturbs_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    may_end = Event()

    def process() -> None:
        assert may_end.wait(30)

    with served(process) as address:
        with pytest.raises(TimeoutError):
            urlopen(Request(f"{address}/invoke", method="POST", data=b"{}"), timeout=0.2)
        may_end.set()
        while (status := ask(f"{address}/invoke", "POST")[0]) == 503:
            time.sleep(0.01)
        assert status == 201
    assert "Traceback" not in capfd.readouterr().err


def test_a_port_in_use_is_said_in_a_line() -> None:
    with served(raising(InputError("none"))) as url, pytest.raises(RuntimeUnavailableError, match=r"^--port .* in use"):
        CaseServer(lambda: None, port=int(url.rsplit(":", 1)[1]))


def test_other_addresses_are_not_found() -> None:
    with served(lambda: None) as address:
        assert ask(f"{address}/")[0] == 404
        assert ask(f"{address}/other", "POST")[0] == 404
