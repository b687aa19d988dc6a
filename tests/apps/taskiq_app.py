"""The sample application on TaskIQ, with the agent in the worker."""

import asyncio
import os

import redis
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

url = os.environ["TEST_REDIS_URL"]
broker = ListQueueBroker(url).with_result_backend(RedisAsyncResultBackend(url))

if os.environ.get("Z4J_TOKEN"):
    from z4j_bare import install_agent
    from z4j_taskiq import TaskiqEngineAdapter
    from z4j_taskiq.events import attach_to_broker

    adapter = TaskiqEngineAdapter(broker=broker)
    attach_to_broker(broker, adapter=adapter)
    agent = install_agent(engines=[adapter])


def mark(name):
    """Counts a real execution where a test can see it, whatever the server believes."""
    redis.Redis.from_url(url).incr(f"ran:{name}")


@broker.task(task_name="add")
async def add(x, y=0):
    mark("add")
    return x + y


@broker.task(task_name="fail")
async def fail(text):
    raise ValueError(text)


@broker.task(task_name="sleep")
async def sleep(seconds):
    mark("sleep.begin")
    await asyncio.sleep(seconds)
    mark("sleep.end")
