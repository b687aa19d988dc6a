"""The sample application on arq, with the agent in the worker."""

import asyncio
import os

from arq.connections import RedisSettings
from z4j_arq import ArqEngineAdapter
from z4j_arq.events import attach_to_worker_settings
from z4j_bare import install_agent

url = os.environ["TEST_REDIS_URL"]


async def add(ctx, x, y=0):
    await ctx["redis"].incr("ran:add")
    return x + y


async def fail(ctx, text):
    raise ValueError(text)


async def sleep(ctx, seconds):
    await ctx["redis"].incr("ran:sleep.begin")
    await asyncio.sleep(seconds)
    await ctx["redis"].incr("ran:sleep.end")


class WorkerSettings:
    functions = [add, fail, sleep]
    redis_settings = RedisSettings.from_dsn(url)
    allow_abort_jobs = True
    max_tries = 1


adapter = ArqEngineAdapter(redis_settings=WorkerSettings.redis_settings, function_names=["add", "fail", "sleep"])
attach_to_worker_settings(WorkerSettings, adapter=adapter)
agent = install_agent(engines=[adapter])
