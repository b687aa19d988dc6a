"""The sample application on Dramatiq, with the agent in the worker process."""

import os
import time

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq_abort import Abortable
from dramatiq_abort.backends import RedisBackend as AbortBackend

url = os.environ["TEST_REDIS_URL"]
broker = RedisBroker(url=url)
# Lets waiting messages be cancelled; without it the engine cannot.
broker.add_middleware(Abortable(backend=AbortBackend(client=redis.Redis.from_url(url))))
dramatiq.set_broker(broker)

if os.environ.get("Z4J_TOKEN"):
    from z4j_bare import install_agent
    from z4j_dramatiq import DramatiqEngineAdapter

    agent = install_agent(engines=[DramatiqEngineAdapter(broker=broker)])


def mark(name):
    """Counts a real execution where a test can see it, whatever the server believes."""
    redis.Redis.from_url(url).incr(f"ran:{name}")


@dramatiq.actor(max_retries=0)
def add(x, y=0):
    mark("add")
    return x + y


@dramatiq.actor(max_retries=0)
def fail(text):
    raise ValueError(text)


@dramatiq.actor(max_retries=3, min_backoff=100, max_backoff=200)
def flaky(key, failures):
    if redis.Redis.from_url(url).incr(key) <= failures:
        raise RuntimeError("flaky")


@dramatiq.actor(max_retries=0)
def sleep(seconds):
    mark("sleep.begin")
    time.sleep(seconds)
    mark("sleep.end")
