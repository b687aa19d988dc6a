"""The agent socket as WIRE describes it: handshake, every close code, acks, displacement, and what must not be stored."""

import json
import uuid

import pytest

from conftest import login
from harness.agent import Agent, Refusal, event, now_text, received, started, succeeded
from harness.client import Project
from harness.commands import new_id
from harness.wait import eventually, never


# --- the handshake


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer " + "x" * 5000},
        {"Authorization": "Bearer z4k_" + "A" * 43},
    ],
)
def test_a_bad_token_is_closed_with_4401_after_the_upgrade(server, project, headers):
    agent = Agent(server.url, project.mint()).dial(headers=headers)
    assert agent.wait_closed() == 4401


def test_the_scheme_of_the_token_is_read_in_any_case(server, project):
    minted = project.mint()
    agent = Agent(server.url, minted).dial(headers={"Authorization": f"bEaReR {minted.token}"})
    agent.socket.send(json.dumps(agent.hello_frame()))
    assert json.loads(agent.socket.recv(timeout=10))["type"] == "hello_ack"
    agent.close()


def test_a_token_in_the_query_is_no_token(server, project):
    minted = project.mint()
    agent = Agent(server.url, minted)
    agent.url += f"?token={minted.token}"
    assert agent.dial(headers={}).wait_closed() == 4401


FIRST_FRAMES = {
    "not JSON": b"hello",
    "not UTF-8": b"\xff\xfe\x00",
    "an array": b"[]",
    "a number": b"2",
    "nothing": b"",
    "no type": b'{"v":2,"id":"hello_1","payload":{}}',
    "no payload": b'{"v":2,"id":"hello_1","type":"hello"}',
    "payload is a list": b'{"v":2,"id":"hello_1","type":"hello","payload":[]}',
    "no protocol version": b'{"v":2,"id":"hello_1","type":"hello","payload":{}}',
    "a version that is a number": b'{"v":2,"id":"hello_1","type":"hello","payload":{"protocol_version":2}}',
    "v is a string": b'{"v":"2","id":"hello_1","type":"hello","payload":{"protocol_version":"2"}}',
    "another type": b'{"v":2,"id":"hb_1","type":"heartbeat","payload":{}}',
    "ten thousand brackets": b"[" * 10_000,
}


@pytest.mark.parametrize("first", FIRST_FRAMES.values(), ids=FIRST_FRAMES.keys())
def test_a_first_frame_that_is_no_hello_is_closed_with_4400(server, project, first):
    agent = Agent(server.url, project.mint()).dial()
    agent.socket.send(first)
    assert agent.wait_closed() == 4400


@pytest.mark.parametrize("version", ["1", "3", "2.0", ""])
def test_another_protocol_version_is_closed_with_4426(server, project, version):
    with pytest.raises(Refusal) as refusal:
        Agent(server.url, project.mint()).open(protocol_version=version)
    assert refusal.value.code in ((4426,) if version else (4400, 4426))


@pytest.mark.parametrize(
    "changes",
    [
        {"engines": [f"e{n}" for n in range(65)]},
        {"worker_id": "w" * 129},
        {"framework": "f" * 41},
        {"engines": "celery"},
        {"worker_pid": "12"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_hello_beyond_the_limits_is_closed_with_4400(server, project, changes):
    with pytest.raises(Refusal) as refusal:
        Agent(server.url, project.mint()).open(**changes)
    assert refusal.value.code == 4400


def test_the_ack_names_the_agent_the_project_and_a_fresh_session(server, project):
    minted = project.mint()
    with Agent(server.url, minted).open() as one, Agent(server.url, minted).open() as two:
        assert one.ack["agent_id"] == minted.id
        assert one.ack["project_id"] == project.id
        assert one.ack["heartbeat_interval_seconds"] == 2, "the setting of this server"
        assert one.ack["max_frame_size_bytes"] == 1 << 20
        assert one.ack["session_id"] != two.ack["session_id"]


def test_a_hello_with_the_smallest_payload_and_unknown_members_is_welcome(server, project):
    agent = Agent(server.url, project.mint()).dial()
    frame = {"v": 2, "id": "hello_1", "type": "hello", "extra": 1, "payload": {
        "protocol_version": "2", "agent_version": "1.13.0", "framework": "bare", "new_member": [1]}}  # fmt: skip
    agent.socket.send(json.dumps(frame))
    assert json.loads(agent.socket.recv(timeout=10))["type"] == "hello_ack"
    agent.close()


# --- an established session


def signed_text(agent, **changes):
    return agent.seal("heartbeat", {"buffer_size": 0, "adapter_health": {}}, **changes)


def flipped(text):
    """The same frame with one digit of its signature changed."""
    frame = json.loads(text)
    frame["hmac"] = ("0" if frame["hmac"][0] != "0" else "1") + frame["hmac"][1:]
    return json.dumps(frame)


VIOLATIONS = {
    "a wrong signature": (4403, lambda a: flipped(signed_text(a))),
    "a signature in upper case": (4403, lambda a: signed_text(a, hmac=json.loads(signed_text(a))["hmac"].upper())),
    "a short signature": (4403, lambda a: signed_text(a, hmac="00")),
    "an empty signature": (4403, lambda a: signed_text(a, hmac="")),
    "a member changed after signing": (4403, lambda a: signed_text(a, nonce="B" * 22)),
    "a member added after signing": (4403, lambda a: signed_text(a, smuggled=True)),
    "a timestamp two minutes old": (4403, lambda a: signed_text(a, sign_ts=now_text(-120))),
    "a timestamp two minutes ahead": (4403, lambda a: signed_text(a, sign_ts=now_text(120))),
    "a timestamp without zone": (4403, lambda a: signed_text(a, sign_ts=now_text()[:26])),
    "a timestamp that is none": (4403, lambda a: signed_text(a, sign_ts="soon")),
    "sequence zero": (4403, lambda a: signed_text(a, sign_seq=0)),
    "an empty nonce": (4403, lambda a: signed_text(a, sign_nonce="")),
    "an unknown type": (1011, lambda a: a.seal("gossip", {})),
    "another version": (1011, lambda a: a.seal("heartbeat", {}, sign_v=3)),
    "a payload that is a list": (1011, lambda a: a.seal("heartbeat", [])),
    "a result that is neither success nor failure": (1011, lambda a: a.seal("command_result", {"status": "maybe"})),
    "not JSON": (4400, lambda a: "{"),
    "an array": (4400, lambda a: "[1,2]"),
    "not UTF-8": (4400, lambda a: b"\xff\xff"),
}


@pytest.mark.parametrize("code, make", VIOLATIONS.values(), ids=VIOLATIONS.keys())
def test_a_violation_ends_the_session_with_its_code(sim, code, make):
    agent = sim()
    agent.report(received(new_id()))
    text = make(agent)
    agent.send_raw(text if isinstance(text, bytes) else text.encode())
    assert agent.wait_closed() == code


@pytest.mark.parametrize("member", ["hmac", "nonce", "seq", "ts"])
def test_a_frame_without_a_signed_member_ends_the_session(sim, member):
    agent = sim()
    frame = json.loads(signed_text(agent, **({} if member == "hmac" else {f"sign_{member}": ...})))
    frame.pop(member, None)
    agent.send_raw(json.dumps(frame).encode())
    assert agent.wait_closed() in (4400, 4403)


@pytest.mark.parametrize("seq", ["1", 1.0, 1.5, None, True])
def test_a_sequence_that_is_no_integer_ends_the_session(sim, seq):
    agent = sim()
    agent.send_raw(signed_text(agent, sign_seq=seq).encode())
    assert agent.wait_closed() in (4400, 4403)


def test_a_replayed_frame_is_closed_with_4403(sim):
    agent = sim()
    text = signed_text(agent).encode()
    agent.send_raw(text)
    agent.report(received(new_id()))
    agent.send_raw(text)
    assert agent.wait_closed() == 4403


def test_a_nonce_used_twice_is_closed_with_4403_even_with_a_new_sequence(sim):
    agent = sim()
    agent.send_raw(signed_text(agent, sign_nonce="AAAAAAAAAAAAAAAAAAAAAA").encode())
    agent.send_raw(signed_text(agent, sign_nonce="AAAAAAAAAAAAAAAAAAAAAA").encode())
    assert agent.wait_closed() == 4403


def test_a_frame_of_another_session_is_closed_with_4403(sim, project):
    minted = project.mint()
    one, two = sim(minted), sim(minted)
    two.send_raw(signed_text(one).encode())
    assert two.wait_closed() == 4403


def test_a_frame_above_the_limit_is_refused_and_one_just_below_is_not(sim, project):
    agent = sim()
    fits = received(new_id(), args=["x" * 900_000])
    assert agent.report(fits)[0]["received"] == 1
    big = agent.seal("event_batch", {"events": [received(new_id(), args=["x" * (1 << 20)])]})
    agent.send_raw(big.encode())
    assert agent.wait_closed() in (4400, 1009)


def test_gaps_text_messages_unknown_members_and_a_second_hello_are_fine(sim):
    agent = sim()
    agent.seq += 40
    agent.report(received(new_id()))
    agent.send_raw(signed_text(agent))  # a text message
    agent.send_raw(signed_text(agent, sign_future={"a": [1, 2.5]}).encode())
    agent.send_raw(json.dumps(agent.hello_frame()).encode())
    agent.send("registry_delta", {"engine": "celery", "added": ["a"], "removed": [], "updated": []})
    agent.send("error", {"code": "x", "message": "y", "fatal": False})
    agent.status()
    agent.report(received(new_id()))
    assert agent.alive


@pytest.mark.parametrize("number", ["0.00001", "1.5e-7", "1e+16", "1E5", "1180591620717411303424", "-0.0", "1.0", "5e-324"])
def test_numbers_are_verified_as_python_prints_them(sim, project, number):
    """The wire spells floats otherwise than the signed text does."""
    agent, one = sim(), new_id()
    batch = "ev_" + uuid.uuid4().hex
    item = received(one, args=[json.loads(number), "MARK"])
    text = agent.seal("event_batch", {"events": [item]}, id=batch)
    printed = json.dumps(json.loads(number))
    assert f'[{printed}, "MARK"]' in text
    agent.send_raw(text.replace(f'[{printed}, "MARK"]', f'[{number}, "MARK"]').encode())
    agent.wait_ack(batch)
    assert project.task(one)["args"] == [json.loads(number), "MARK"]


def test_text_of_every_kind_survives(sim, project):
    agent, one = sim(), new_id()
    text = "é ✓ 😀 \uffff \u2028 \x7f \\ \" / \t\n\r\b\f \x01 ключ"
    agent.report(received(one, kwargs={text: text, "a": {"😀": 1, "\uffff": 2}}))
    assert project.task(one)["kwargs"] == {text: text, "a": {"😀": 1, "\uffff": 2}}


def test_a_lone_surrogate_and_an_infinite_number_cannot_be_signed(sim):
    for bad in ('"\\ud800"', "1e400", "NaN"):
        agent = sim()
        text = agent.seal("heartbeat", {"adapter_health": {"x": "MARK"}}).replace('"MARK"', bad)
        agent.send_raw(text.encode())
        assert agent.wait_closed() in (4400, 4403)


# --- events and acks


def test_every_batch_is_acked_with_its_id_and_counts(sim, project):
    agent = sim()
    ids = [new_id() for _ in range(20)]
    counts = agent.report(*[received(one) for one in ids])
    assert all(c == {"acked_id": c["acked_id"], "received": 1, "accepted": 1, "rejected": 0} for c in counts)
    many = agent.batch(*[started(one) for one in ids])
    assert agent.wait_ack(many)["received"] == 20
    assert {row["task_id"] for row in project.tasks(state="started")} == set(ids)


def test_an_acked_event_is_visible_at_once(sim, project):
    agent = sim()
    for _ in range(30):
        one = new_id()
        agent.report(received(one))
        assert project.task(one)["state"] == "received"


def test_a_batch_sent_again_is_acked_again_and_changes_nothing(sim, project):
    agent, one = sim(), new_id()
    items = [received(one), started(one), event("retried", one, task_name="a", worker="w1@host")]
    batch = agent.batch(*items, id="ev_again")
    agent.wait_ack(batch)
    before = project.task(one)
    for _ in range(3):
        agent.acks.clear()
        agent.batch(*items, id="ev_again")
        assert agent.wait_ack("ev_again")["received"] == 3
        agent.report(*items)
    assert project.task(one) == before
    assert len(project.events(one)) == 3


def test_a_window_of_256_batches_is_acked_without_waiting_for_more(sim, project):
    agent = sim()
    ids = [agent.batch(received(new_id())) for _ in range(256)]
    for batch in ids:
        agent.wait_ack(batch)
    assert len(project.walk(limit=100)) == 256


def test_events_come_back_newest_first_with_their_own_times(sim, project):
    agent, one = sim(), new_id()
    first, second = received(one, at=now_text(-5)), started(one, at=now_text(-4))
    third = succeeded(one, at=now_text(-3))
    agent.report(third, first, second)
    events = project.events(one)
    assert [e["kind"] for e in events] == ["task.succeeded", "task.started", "task.received"]
    assert events[0]["payload"]["result"] == "3" and events[0]["engine"] == "celery"
    assert all(e["agent_id"] == agent.ack["agent_id"] and e["project_id"] == project.id for e in events)
    assert [e["occurred_at"].replace("Z", "+00:00") for e in events] == [
        item["occurred_at"] for item in (third, second, first)
    ]


MALFORMED_ITEMS = {
    "not an object": 7,
    "null": None,
    "a list": [],
    "no engine": {"id": "1", "kind": "task.received", "task_id": "t", "data": {}},
    "no kind": {"id": "1", "engine": "celery", "task_id": "t", "data": {}},
    "no task id": {"id": "1", "kind": "task.received", "engine": "celery", "data": {}},
    "task id is a number": {"id": "1", "kind": "task.received", "engine": "celery", "task_id": 5, "data": {}},
    "engine is an object": {"id": "1", "kind": "task.received", "engine": {}, "task_id": "t", "data": {}},
    "kind of nobody": {"id": "1", "kind": "task.exploded", "engine": "celery", "task_id": "t", "data": {}},
    "task id too long": {"id": "1", "kind": "task.received", "engine": "celery", "task_id": "t" * 5000, "data": {}},
    "empty task id": {"id": "1", "kind": "task.received", "engine": "celery", "task_id": "", "data": {}},
    "NUL in the task id": {"id": "1", "kind": "task.received", "engine": "celery", "task_id": "a\0b", "data": {}},
    "engine of nobody": {"id": "1", "kind": "task.received", "engine": "cel ery/../", "task_id": "t", "data": {}},
}


@pytest.mark.parametrize("item", MALFORMED_ITEMS.values(), ids=MALFORMED_ITEMS.keys())
def test_a_malformed_item_is_acked_and_not_stored(sim, project, item):
    agent, good = sim(), new_id()
    counts = agent.wait_ack(agent.batch(item, received(good)))
    assert counts["received"] == 2
    assert [row["task_id"] for row in project.walk()] == [good]
    assert agent.alive


@pytest.mark.parametrize("payload", [{}, {"events": None}, {"events": "x"}, {"events": {}}, {"events": []}])
def test_a_batch_without_events_is_acked(sim, project, payload):
    agent = sim()
    agent.send("event_batch", payload, id="ev_odd")
    agent.wait_ack("ev_odd")
    agent.report(received(new_id()))
    assert len(project.walk()) == 1


ODD_DATA = {
    "no data": lambda one: {"id": str(uuid.uuid4()), "kind": "task.received", "engine": "celery", "task_id": one, "occurred_at": now_text()},
    "data is null": lambda one: event("received", one) | {"data": None},
    "data is a list": lambda one: event("received", one) | {"data": [1]},
    "a time that is none": lambda one: received(one, at="yesterday"),
    "no time": lambda one: {k: v for k, v in received(one).items() if k != "occurred_at"},
    "a time without zone": lambda one: received(one, at=now_text()[:26]),
    "a time in 2199": lambda one: received(one, at="2199-01-01T00:00:00+00:00"),
    "a time in 1970": lambda one: received(one, at="1970-01-01T00:00:00+00:00"),
    "a name that is a number": lambda one: received(one, name=5),
    "tags that are no list": lambda one: received(one, tags={"a": 1}),
    "a priority of nobody": lambda one: received(one, priority="urgent"),
    "args that are an object": lambda one: received(one, args={"a": 1}),
    "no event id": lambda one: {k: v for k, v in received(one).items() if k != "id"},
}


@pytest.mark.parametrize("make", ODD_DATA.values(), ids=ODD_DATA.keys())
def test_odd_content_never_costs_the_session_and_never_breaks_a_read(sim, project, make):
    agent, odd, good = sim(), new_id(), new_id()
    agent.wait_ack(agent.batch(make(odd)))
    agent.report(received(good))
    rows = {row["task_id"]: row for row in project.walk()}
    assert good in rows and set(rows) <= {odd, good}
    for row in rows.values():
        assert row["received_at"] and isinstance(row["tags"], list)
        assert row["priority"] in ("critical", "high", "normal", "low")
        assert row["args"] is None or isinstance(row["args"], list)
        assert project.task(row["task_id"]) == row


# --- several processes on one token


def test_the_same_worker_again_displaces_the_old_socket_with_4002(sim, project):
    minted = project.mint()
    old = sim(minted, worker_id="bare-1-1")
    new = sim(minted, worker_id="bare-1-1")
    assert old.wait_closed() == 4002
    new.report(received(new_id()))
    assert new.alive


def test_a_missing_worker_id_is_one_slot_of_its_own(sim, project):
    minted = project.mint()
    named = sim(minted, worker_id="bare-1-1")
    first = sim(minted, worker_id=None)
    second = sim(minted, worker_id=None)
    assert first.wait_closed() == 4002
    second.report(received(new_id()))
    named.report(received(new_id()))


def test_several_workers_of_one_token_stay_and_a_command_goes_to_one_of_them(sim, project):
    minted = project.mint()
    three = [sim(minted) for _ in range(3)]
    command = project.issue("retry-task", agent_id=minted.id, engine="celery", task_id=new_id())
    eventually(lambda: sum(len(a.command_log) for a in three) == 1, why="one frame")
    never(lambda: sum(len(a.command_log) for a in three) > 1, during=0.5)
    assert all(a.alive for a in three)
    holder = next(a for a in three if a.command_log)
    assert holder.command_log[0]["id"] == command["id"]


def test_the_65th_worker_of_a_token_is_closed_with_4429(sim, project):
    minted = project.mint()
    for n in range(64):
        sim(minted, worker_id=f"w-{n}")
    with pytest.raises(Refusal) as refusal:
        sim(minted, worker_id="w-64")
    assert refusal.value.code == 4429


def test_connects_beyond_an_addresss_limit_are_closed_with_4429(own_server, monkeypatch):
    server = own_server(connect_limit_per_minute=2)
    minted = Project.create(login(server)).mint()
    monkeypatch.setattr("harness.agent.own_address", lambda: "127.8.8.8")
    for _ in range(2):
        Agent(server.url, minted).open().close()
    with pytest.raises(Refusal) as refusal:
        Agent(server.url, minted).open()
    assert refusal.value.code == 4429
    monkeypatch.setattr("harness.agent.own_address", lambda: "127.8.8.9")
    Agent(server.url, minted).open().close()


def test_an_agent_is_online_while_one_socket_is_open_and_offline_soon_after_the_last(sim, project):
    minted = project.mint()
    assert project.agent(minted.id)["state"] == "unknown"
    one, two = sim(minted), sim(minted)
    row = eventually(lambda: (r := project.agent(minted.id))["state"] == "online" and r)
    assert row["engine_adapters"] == ["celery"] and row["capabilities"]["celery"]
    assert row["agent_version"] == "1.13.0" and row["framework_adapter"] == "bare" and row["protocol_version"] == "2"
    one.close()
    never(lambda: project.agent(minted.id)["state"] != "online", during=1)
    two.drop()
    eventually(lambda: project.agent(minted.id)["state"] == "offline", 10, why="D30: offline within 10 s")


def test_a_revoked_agent_is_closed_with_4003_and_its_token_is_dead(sim, project, server):
    minted = project.mint()
    one, two = sim(minted), sim(minted)
    project.client.delete(project.path(f"/agents/{minted.id}"))
    assert one.wait_closed() == 4003 and two.wait_closed() == 4003
    assert Agent(server.url, minted).dial().wait_closed() == 4401
    again = project.client.delete(project.path(f"/agents/{minted.id}"), expect=(204, 404))
    assert again.status_code == 204, "revoking is idempotent"


def test_a_token_of_one_project_never_writes_into_another(sim, project, admin):
    other = Project.create(admin)
    agent, one = sim(), new_id()
    agent.report(received(one) | {"project_id": other.id})
    agent.send("event_batch", {"events": [received(one)], "project_id": other.id}, id="ev_x")
    agent.wait_ack("ev_x")
    assert other.walk() == [] and len(project.walk()) == 1


# --- garbage


@pytest.mark.timeout(180)
def test_garbage_leaves_no_memory_behind(own_server):
    """Wrong tokens, broken handshakes, broken frames, oversize, deep nesting and malformed events, many times over."""
    server = own_server()
    project = Project.create(login(server))
    minted = project.mint()
    steady = Agent(server.url, minted, worker_id="steady").open()

    def storm(rounds):
        for n in range(rounds):
            Agent(server.url, minted).dial(token="wrong").wait_closed()
            dialled = Agent(server.url, minted).dial()
            dialled.socket.send(b"[" * 50_000)
            dialled.wait_closed()
            agent = Agent(server.url, minted, worker_id=f"garbage-{n % 5}").open()
            for item in MALFORMED_ITEMS.values():
                agent.batch(item, id=f"ev_{uuid.uuid4().hex}")
            agent.send("command_result", {"status": "success", "result": {"x": "y" * 200_000}}, id=str(uuid.uuid4()))
            agent.send("heartbeat", {"adapter_health": {f"k{n}-{m}": "v" * 1000 for m in range(200)}})
            agent.send_raw(b'{"v":2,"type":"heartbeat","payload":' + b'{"a":' * 5_000)
            agent.wait_closed()

    storm(25)
    before = server.rss()
    storm(75)
    steady.report(received(new_id()))
    grown = server.rss() - before
    assert grown < 24 << 20, f"grew by {grown >> 20} MiB"
    assert len(project.walk()) == 1
