"""Waiting for a fact instead of sleeping for a while."""

import time


class NotYet(AssertionError):
    """The fact did not come true before the deadline."""


def eventually(predicate, deadline=10.0, every=0.05, why=None):
    """Calls `predicate` until it returns something true, and returns that.

    An AssertionError inside the predicate counts as "not yet", so a predicate may be a list of asserts; the last one is
    what a failing test shows.
    """
    end = time.monotonic() + deadline
    last = None
    while True:
        try:
            value = predicate()
            if value:
                return value
            last = f"last value: {value!r}"
        except AssertionError as error:
            last = str(error)
        if time.monotonic() >= end:
            raise NotYet(f"{why or 'not true'} within {deadline} s; {last}")
        time.sleep(every)


def never(predicate, during=1.0, every=0.05, why=None):
    """Asserts that `predicate` stays false for `during` seconds."""
    end = time.monotonic() + during
    while time.monotonic() < end:
        value = predicate()
        assert not value, f"{why or 'became true'}: {value!r}"
        time.sleep(every)
