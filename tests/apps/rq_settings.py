"""Read by `rq worker -c rq_settings`: where Redis is, and the agent of this worker."""

import os

import redis
from rq import Queue
from z4j_bare import install_agent
from z4j_rq import RqEngineAdapter

REDIS_URL = os.environ["TEST_REDIS_URL"]


class App:
    connection = redis.Redis.from_url(REDIS_URL)

    @property
    def queues(self):
        return Queue.all(connection=self.connection)


agent = install_agent(engines=[RqEngineAdapter(rq_app=App())])
