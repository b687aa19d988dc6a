"""A simulated agent: the protocol as the real ones speak it, with every knob turned by the test.

It verifies every frame of the server (signature, sequence, nonce, clock) and remembers what was acked, so a test can use
it as the oracle of what the server promised to keep.
"""

import base64
import json
import os
import threading
import time
import uuid
from collections import deque
from datetime import datetime, timedelta, timezone

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from harness.canonical import secret_bytes, signature
from harness.server import own_address
from harness.wait import eventually

CELERY = (
    "add_consumer bulk_retry cancel_consumer cancel_task pool_grow pool_shrink purge_queue rate_limit "
    "restart_worker retry_by_reference_v1 retry_task submit_task"
).split()
CLOCK_SLACK = timedelta(seconds=60)


def now_text(shift=0.0):
    """The current time as agents write it."""
    return (datetime.now(timezone.utc) + timedelta(seconds=shift)).isoformat(timespec="microseconds")


def nonce():
    return base64.urlsafe_b64encode(os.urandom(16)).rstrip(b"=").decode()


def event(kind, task_id, engine="celery", at=None, id=None, **data):
    """One item of an event batch; `kind` without its `task.` prefix."""
    return {
        "id": id or str(uuid.uuid4()),
        "kind": kind if "." in kind else f"task.{kind}",
        "engine": engine,
        "task_id": task_id,
        "occurred_at": at or now_text(),
        "data": data,
    }


def received(task_id, name="email.send", queue="default", at=None, **more):
    """A `received` as a Celery worker's signal reports it."""
    data = {"args": [1], "kwargs": {"k": "v"}, "worker": None, "root_task_id": task_id, **more}
    return event("received", task_id, at=at, task_name=name, queue=queue, **data)


def started(task_id, worker="w1@host", at=None, **more):
    """A `started` as the broker's event stream reports it: no name, no queue."""
    placeholder = f"<unknown:{task_id[:8]}>"
    return event(
        "started", task_id, at=at, task_name=placeholder, queue=None, worker=worker, args=None, kwargs=None, **more
    )


def succeeded(task_id, worker="w1@host", at=None, result="3", runtime_ms=12, **more):
    placeholder = f"<unknown:{task_id[:8]}>"
    return event(
        "succeeded", task_id, at=at, task_name=placeholder, queue=None, worker=worker, result=result,
        runtime_ms=runtime_ms, **more
    )  # fmt: skip


def failed(task_id, worker="w1@host", at=None, exception="ValueError", message="ValueError('bad')", **more):
    placeholder = f"<unknown:{task_id[:8]}>"
    return event(
        "failed", task_id, at=at, task_name=placeholder, queue=None, worker=worker, exception=exception,
        exception_message=message, traceback="Traceback (most recent call last):\n  ...\n" + message, **more
    )  # fmt: skip


def retried(task_id, worker="w1@host", at=None, reason="RuntimeError('flaky')", **more):
    placeholder = f"<unknown:{task_id[:8]}>"
    return event("retried", task_id, at=at, task_name=placeholder, queue=None, worker=worker, reason=reason, **more)


def revoked(task_id, at=None, **more):
    return event(
        "revoked", task_id, at=at, task_name=more.pop("name", None) or f"<unknown:{task_id[:8]}>", queue=None,
        worker=None, terminated=True, signum=15, expired=False, **more
    )  # fmt: skip


class Refusal(Exception):
    """The server ended the connection where the test expected it to go on."""

    def __init__(self, code):
        super().__init__(f"closed with {code}")
        self.code = code


class Agent:
    """One process with an agent's token. `open()` dials and shakes hands; `dial()` alone stops before the hello."""

    def __init__(self, url, minted, worker_id="", engines=("celery",), capabilities=None, on_command=None, role="task"):
        self.url = url.replace("http", "ws", 1) + "/ws/agent"
        self.minted = minted
        self.token = minted.token
        self.secret = secret_bytes(minted.secret)
        self.worker_id = f"bare-{os.getpid()}-{uuid.uuid4().hex[:8]}" if worker_id == "" else worker_id
        self.engines = list(engines)
        self.capabilities = {"celery": list(CELERY)} if capabilities is None else capabilities
        self.role = role
        self.on_command = on_command
        self.socket = None
        self.ack = None
        self._reset()

    def _reset(self):
        self.seq = 0
        self.write = threading.Lock()
        self.seen_seq = 0
        self.seen_nonces = set()
        self.heard = threading.Condition()
        self.acks = {}
        self.commands = deque()
        self.command_log = []
        self.frames = []
        self.closed_with = None
        self.broken = None

    # --- connection

    def dial(self, token=None, headers=None):
        """Upgrades only. The server answers every upgrade and then closes with a code, or waits for the hello."""
        self._reset()
        extra = {"Authorization": f"Bearer {self.token if token is None else token}"} if headers is None else headers
        self.socket = connect(
            self.url, additional_headers=extra, max_size=64 << 20, open_timeout=10, close_timeout=2, proxy=None,
            ping_interval=None, source_address=(own_address(), 0)
        )  # fmt: skip
        return self

    def hello_payload(self, **changes):
        payload = {
            "protocol_version": "2",
            "agent_version": "1.13.0",
            "framework": "bare",
            "engines": self.engines,
            "schedulers": [],
            "capabilities": self.capabilities,
            "host": {"name": "sim"},
            "worker_id": self.worker_id,
            "worker_role": self.role,
            "worker_pid": os.getpid(),
            "worker_started_at": now_text(),
            "runtime_features": ["retry_by_reference"],
        }
        payload.update(changes)
        return payload

    def hello_frame(self, **changes):
        return {"v": 2, "id": "hello_" + uuid.uuid4().hex[:16], "ts": None, "type": "hello", "payload": self.hello_payload(**changes)}

    def open(self, **changes):
        """Dials, says hello, checks the answer, and starts to read."""
        self.dial()
        try:
            # A server that refuses may have closed before it is told anything.
            self.socket.send(json.dumps(self.hello_frame(**changes)).encode())
            frame = json.loads(self.socket.recv(timeout=10))
        except ConnectionClosed as error:
            raise Refusal(error.rcvd.code if error.rcvd else None) from None
        assert frame["type"] == "hello_ack" and frame["v"] == 2, frame
        assert not {"hmac", "seq", "nonce"} & set(frame), "hello_ack is not signed"
        self.ack = frame["payload"]
        assert self.ack["protocol_version"] == "2"
        for name in ("brain_version", "agent_id", "project_id", "session_id"):
            assert isinstance(self.ack[name], str) and 1 <= len(self.ack[name]) <= 64
        assert type(self.ack["heartbeat_interval_seconds"]) is int
        assert type(self.ack["max_frame_size_bytes"]) is int
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Closes politely."""
        if self.socket is not None:
            self.socket.close()

    def drop(self):
        """Cuts the TCP connection without a close frame, as a crash does."""
        import socket as sockets

        try:
            self.socket.socket.shutdown(sockets.SHUT_RDWR)
        except OSError:
            pass

    def wait_closed(self, deadline=10.0):
        """The code the server closed with; reads by itself when no reader runs yet."""
        if self.ack is None:
            end = time.monotonic() + deadline
            while time.monotonic() < end:
                try:
                    self.socket.recv(timeout=max(0.01, end - time.monotonic()))
                except ConnectionClosed as error:
                    return error.rcvd.code if error.rcvd else 1006
                except TimeoutError:
                    break
            raise AssertionError(f"still open after {deadline} s")
        with self.heard:
            self.heard.wait_for(lambda: self.closed_with is not None, deadline)
        assert self.closed_with is not None, f"still open after {deadline} s"
        assert self.broken is None, self.broken
        return self.closed_with

    @property
    def alive(self):
        return self.socket is not None and self.closed_with is None

    # --- reading

    def _read(self):
        while True:
            try:
                raw = self.socket.recv()
            except ConnectionClosed as error:
                with self.heard:
                    self.closed_with = error.rcvd.code if error.rcvd else 1006
                    self.heard.notify_all()
                return
            try:
                self._hear(json.loads(raw), len(raw))
            except ConnectionClosed:
                continue  # the answer found the server gone; the next read says so
            except Exception as error:  # noqa: BLE001 - shown by whichever assertion looks next
                with self.heard:
                    self.broken = f"{type(error).__name__}: {error}; frame {raw[:500]!r}"
                    self.heard.notify_all()

    def _hear(self, frame, size):
        assert size <= 1 << 20, "an agent refuses frames above 1 MiB"
        assert frame["v"] == 2
        assert frame["type"] in ("event_batch_ack", "command", "error"), frame["type"]
        expected = signature(
            self.secret, frame, self.ack["agent_id"], self.ack["project_id"], self.ack["session_id"]
        )
        assert frame["hmac"] == expected, "the server's signature is wrong"
        assert type(frame["seq"]) is int and frame["seq"] > self.seen_seq, "the server's sequence went back"
        assert 1 <= len(frame["nonce"]) <= 32 and frame["nonce"] not in self.seen_nonces, "a nonce twice"
        stamp = datetime.fromisoformat(frame["ts"].replace("Z", "+00:00"))
        assert abs(datetime.now(timezone.utc) - stamp) <= CLOCK_SLACK, "the server's clock"
        assert 1 <= len(frame["id"]) <= 64
        self.seen_seq = frame["seq"]
        self.seen_nonces.add(frame["nonce"])
        with self.heard:
            if frame["type"] == "event_batch_ack":
                counts = frame["payload"]
                assert counts["received"] == counts["accepted"] + counts["rejected"], counts
                self.acks[counts["acked_id"]] = counts
            else:
                self.frames.append(frame)
            if frame["type"] == "command":
                self.commands.append(frame)
                self.command_log.append(frame)
            self.heard.notify_all()
        if frame["type"] == "command" and self.on_command is not None:
            self.on_command(self, frame)

    # --- writing

    def seal(self, kind, payload, id=None, **changes):
        """A signed frame as wire text; `changes` override members after signing, `sign_*` before."""
        self.seq += 1
        frame = {
            "v": 2,
            "id": id or f"{kind[:2]}_{uuid.uuid4().hex[:12]}",
            "ts": now_text(),
            "nonce": nonce(),
            "seq": self.seq,
            "hmac": "",
            "type": kind,
            "payload": payload,
        }
        for name in [name for name in changes if name.startswith("sign_")]:
            value = changes.pop(name)
            if value is ...:
                frame.pop(name.removeprefix("sign_"))
            else:
                frame[name.removeprefix("sign_")] = value
        frame["hmac"] = signature(
            self.secret, frame, self.ack["agent_id"], self.ack["project_id"], self.ack["session_id"]
        )
        frame.update(changes)
        return json.dumps(frame, ensure_ascii=False)

    def send(self, kind, payload, id=None, **changes):
        """Seals and writes in one step, so that the sequence is the order on the wire. Returns the frame's id."""
        with self.write:
            text = self.seal(kind, payload, id, **changes)
            self.socket.send(text.encode())
        return json.loads(text)["id"] if id is None else id

    def send_raw(self, data):
        with self.write:
            self.socket.send(data)

    def batch(self, *items, id=None):
        """Sends one event_batch; returns its id without waiting."""
        return self.send("event_batch", {"events": list(items)}, id=id or "ev_" + uuid.uuid4().hex)

    def wait_ack(self, batch_id, deadline=10.0):
        with self.heard:
            self.heard.wait_for(
                lambda: batch_id in self.acks or self.closed_with is not None or self.broken, deadline
            )
        assert self.broken is None, self.broken
        assert batch_id in self.acks, f"no ack of {batch_id} within {deadline} s (closed: {self.closed_with})"
        return self.acks[batch_id]

    def report(self, *items, deadline=10.0):
        """Sends each item as real agents do, one frame per event, and waits for every ack."""
        ids = [self.batch(item) for item in items]
        return [self.wait_ack(batch_id, deadline) for batch_id in ids]

    def heartbeat(self, health=None, **changes):
        payload = {
            "buffer_size": 0,
            "last_flush_at": None,
            "dropped_events": 0,
            "telemetry_loss": None,
            "adapter_health": health or {},
            **changes,
        }
        return self.send("heartbeat", payload, id="hb_" + uuid.uuid4().hex[:12])

    def beat_with_workers(self, *names, queues=("default",), concurrency=2, conf=None):
        """A heartbeat whose `worker_details` name these Celery workers."""
        details = {
            name: {
                "stats": {"pid": 4242, "pool": {"max-concurrency": concurrency, "processes": list(range(concurrency))}, "total": {}},
                "active": [],
                "active_queues": [{"name": queue} for queue in queues],
                "registered": ["email.send"],
                "conf": conf or {},
            }
            for name in names
        }
        return self.heartbeat(
            {
                "celery.broker_type": "redis",
                "celery.broker_connected": "True",
                "celery.queue_depths": "{}",
                "celery.worker_details": json.dumps(details),
            }
        )

    def status(self):
        return self.send(
            "agent_status",
            {
                "telemetry_loss": None, "auth_failure_streak": 0, "protocol_failure_streak": 0,
                "connection_failure_streak": 0, "last_successful_connect_at": None, "current_session_age_seconds": 10.0,
                "buffer_depth": 0, "buffer_oldest_age_seconds": 0.000015, "agent_version": "1.13.0",
                "protocol_version": "2", "engines": self.engines, "schedulers": [],
            },
            id="as_" + uuid.uuid4().hex[:12],
        )  # fmt: skip

    # --- commands

    def next_command(self, deadline=10.0):
        """The next command frame that was delivered."""
        with self.heard:
            self.heard.wait_for(lambda: self.commands or self.closed_with is not None or self.broken, deadline)
            assert self.broken is None, self.broken
            assert self.commands, f"no command within {deadline} s (closed: {self.closed_with})"
            return self.commands.popleft()

    def ack_command(self, frame):
        self.send("command_ack", {"delivery_claim_token": frame["payload"].get("delivery_claim_token")}, id=frame["id"])

    def answer(self, frame, status="success", result=None, error=None, ack=True):
        """Acks a command and reports its result, as the agents do."""
        if ack:
            self.ack_command(frame)
        payload = {
            "status": status,
            "result": result,
            "error": error,
            "delivery_claim_token": frame["payload"].get("delivery_claim_token"),
        }
        self.send("command_result", payload, id=frame["id"])


def succeed_everything(agent, frame):
    """An `on_command` that answers at once, with a result shaped like the real one."""
    action, parameters = frame["payload"]["action"], frame["payload"]["parameters"]
    results = {
        "retry_task": lambda: {"new_task_id": str(uuid.uuid4()), "task_name": parameters.get("task_name"), "priority": None},
        "cancel_task": lambda: {"task_id": parameters.get("task_id"), "terminated": True},
        "bulk_retry": lambda: bulk_result(parameters),
        "purge_queue": lambda: {"queue": parameters.get("queue"), "depth_before": 0, "purged": 0, "force": True},
    }
    make = results.get(action, lambda: {"worker": parameters.get("worker_name")})
    agent.answer(frame, "success", make())


def commands_of(agent):
    """The commands whose frames an agent got, in order: a chunk's frame has an id of its own, the claim names its command."""
    return [frame["payload"]["delivery_claim_token"][:36] for frame in agent.command_log]


def bulk_result(parameters):
    ids = parameters["filter"]["task_ids"]
    return {
        "filter": parameters["filter"], "requested": len(ids), "succeeded": len(ids), "failed": 0, "skipped": 0,
        "circuit_broken": False, "capped": False, "hard_cap": 10000,
        "new_task_ids": {old: str(uuid.uuid4()) for old in ids}, "failures": {},
    }  # fmt: skip


def upgrade_status(url, headers):
    """The HTTP status of a refused upgrade, or 101."""
    try:
        with connect(url.replace("http", "ws", 1) + "/ws/agent", additional_headers=headers, proxy=None):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


def settle(agent, ids, deadline=20.0):
    """Waits until all these batches are acked."""
    eventually(lambda: all(batch in agent.acks for batch in ids), deadline, why="acks are missing")
