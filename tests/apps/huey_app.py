"""The sample application on huey, with the agent in the consumer."""

import os
import time

import redis
from huey import RedisHuey

url = os.environ["TEST_REDIS_URL"]
huey = RedisHuey("sample", url=url)

if os.environ.get("Z4J_TOKEN"):
    from z4j_bare import install_agent
    from z4j_huey import HueyEngineAdapter

    agent = install_agent(engines=[HueyEngineAdapter(huey=huey)])


def mark(name):
    """Counts a real execution where a test can see it, whatever the server believes."""
    redis.Redis.from_url(url).incr(f"ran:{name}")


@huey.task()
def add(x, y=0):
    mark("add")
    return x + y


@huey.task()
def fail(text):
    raise ValueError(text)


@huey.task(retries=2, retry_delay=0)
def flaky(key, failures):
    if redis.Redis.from_url(url).incr(key) <= failures:
        raise RuntimeError("flaky")


@huey.task()
def sleep(seconds):
    mark("sleep.begin")
    time.sleep(seconds)
    mark("sleep.end")
