"""The sample application that the real workers run: an ordinary Celery app, as a user would write it."""

import os
import time

import z4j_celery  # noqa: F401 - starts the agent inside a worker
from celery import Celery
from z4j_celery import z4j_meta

url = os.environ["TEST_REDIS_URL"]
app = Celery("sample", broker=url, backend=url)
app.conf.update(
    result_extended=True,  # a retry by reference reads the arguments back from here
    worker_pool_restarts=True,
    task_default_queue="default",
    task_track_started=True,
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    task_routes={"route.*": {"queue": "routed"}},
)


def mark(name):
    """Counts a real execution where a test can see it, whatever the server believes."""
    app.backend.client.incr(f"ran:{name}")


@app.task(name="math.add")
def add(x, y):
    mark("math.add")
    return x + y


@app.task(name="math.fail")
def fail(text="bad value"):
    raise ValueError(text)


@app.task(name="math.flaky", bind=True, max_retries=5)
def flaky(self, failures, countdown=0.2):
    """Fails `failures` times, then succeeds."""
    mark("math.flaky")
    if self.request.retries < failures:
        raise self.retry(exc=RuntimeError("flaky"), countdown=countdown)
    return self.request.retries


@app.task(name="slow.sleep")
def sleep(seconds):
    mark("slow.begin")
    time.sleep(seconds)
    mark("slow.end")
    return "slept"


@app.task(name="email.send")
def send(to, subject=None, password=None, api_key=None):
    mark("email.send")
    return {"sent": to}


@app.task(name="text.echo")
def echo(text, **more):
    return text


@app.task(name="billing.charge")
@z4j_meta(tags=["billing", "eu"], priority="high")
def charge(amount):
    return amount


@app.task(name="math.sum")
def total(numbers):
    return sum(numbers)


@app.task(name="route.me")
def routed():
    return "there"


@app.task(name="route.count")
def count(n):
    """Counts the executions of each argument by itself."""
    app.backend.client.hincrby("ran-by", n, 1)
