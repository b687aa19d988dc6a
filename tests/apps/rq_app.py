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


def sleep(seconds):
    mark("sleep.begin")
    time.sleep(seconds)
    mark("sleep.end")
