"""The sample application on RQ. `rq worker -c rq_settings` imports the settings module, which starts the agent."""

import os
import time

import redis


def mark(name):
    """Counts a real execution where a test can see it, whatever the server believes."""
    redis.Redis.from_url(os.environ["TEST_REDIS_URL"]).incr(f"ran:{name}")


def add(x, y=0):
    mark("add")
    return x + y


def fail(text):
    raise ValueError(text)


def flaky(key, failures):
    """Fails `failures` times, then succeeds; a retry by reference keeps these very arguments."""
    mark("flaky")
    if redis.Redis.from_url(os.environ["TEST_REDIS_URL"]).incr(key) <= failures:
        raise RuntimeError("flaky")


def sleep(seconds):
    mark("sleep.begin")
    time.sleep(seconds)
    mark("sleep.end")
