"""Work done ahead comes in order, is bounded, and ends when nobody wants it any more."""

import random
import threading
import time
from collections.abc import Iterator

import pytest

from mitosis.ahead import THREADS, WAITING, ahead


def test_order_is_kept_whatever_the_timing() -> None:
    def slow(number: int) -> int:
        time.sleep(random.uniform(0, 0.004))
        return number * number

    assert list(ahead(slow, range(100))) == [n * n for n in range(100)]


def test_no_more_waits_than_said() -> None:
    taken = 0

    def arguments() -> Iterator[int]:
        nonlocal taken
        while taken < 1000:
            yield taken
            taken += 1

    results = ahead(lambda number: number, arguments())
    for number in range(5):
        assert next(results) == number
        assert taken <= number + THREADS * WAITING
    results.close()


def test_an_error_comes_where_its_result_would() -> None:
    def fails_at_three(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    results = ahead(fails_at_three, range(50))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_closing_ends_the_threads() -> None:
    before = threading.active_count()
    done = []
    results = ahead(done.append, range(1000))
    next(results)
    results.close()
    assert threading.active_count() == before
    assert len(done) < 1 + 2 * THREADS * WAITING
