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


def test_health_is_answered_during_a_case_and_cases_take_turns() -> None:
    may_end, running, most, answers = Event(), [0], [0], []

    def process() -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        assert may_end.wait(30)
        running[0] -= 1

    with served(process) as address:
        clients = [Thread(target=lambda: answers.append(ask(f"{address}/invoke", "POST"))) for _ in range(3)]
        for client in clients:
            client.start()
        while not running[0]:
            time.sleep(0.01)
        assert ask(f"{address}/health") == (200, {})
        assert answers == []
        may_end.set()
        for client in clients:
            client.join(30)
    assert answers == [(201, {})] * 3
    assert most == [1]


def test_other_addresses_are_not_found() -> None:
    with served(lambda: None) as address:
        assert ask(f"{address}/")[0] == 404
        assert ask(f"{address}/other", "POST")[0] == 404
