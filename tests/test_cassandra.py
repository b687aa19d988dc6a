"""The same promises on a real Cassandra. The whole suite runs there with THALAMUS_TEST_STORE=cql."""

import subprocess
import uuid

import pytest

from conftest import login
from harness.agent import Agent, failed, now_text, received, retried, started, succeed_everything, succeeded
from harness.client import Project
from harness.cql import execute
from harness.server import Server, binary, clean_environment
from harness.wait import eventually

pytestmark = [pytest.mark.cql, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    from conftest import CQL

    if not CQL:
        pytest.skip("THALAMUS_TEST_CQL is not set: no Cassandra")
    one = Server(tmp_path_factory.mktemp("node"), store="cql", cql=CQL, heartbeat_seconds=2, command_timeout_seconds=20)
    yield one.start(deadline=120)
    one.discard()


def story(project, agent, count=40):
    """Tasks in several states, half a minute old; returns {task id: state}."""
    told = {}
    for n in range(count):
        one, at = str(uuid.uuid4()), [now_text(-60 + n / 10 + ms / 1000) for ms in (0, 10, 20, 30)]
        items = [received(one, name=f"job.{n % 4}", at=at[0]), started(one, at=at[1])]
        if n % 3 == 0:
            items += [retried(one, at=at[2]), started(one, at=at[3])]
            told[one] = "started"
        elif n % 3 == 1:
            items.append(succeeded(one, at=at[2]))
            told[one] = "succeeded"
        else:
            items.append(failed(one, at=at[2]))
            told[one] = "failed"
        for batch in [agent.batch(item) for item in items]:
            agent.wait_ack(batch, 20)
    return told


def test_what_was_acked_is_seen_filtered_walked_and_survives_a_kill(node):
    project = Project.create(login(node))
    with Agent(node.url, project.mint()).open() as agent:
        told = story(project, agent)
    rows = {row["task_id"]: row for row in project.walk(limit=7)}
    assert {one: row["state"] for one, row in rows.items()} == told
    assert len(project.walk(state="failed", limit=3)) == list(told.values()).count("failed")
    assert len(project.walk(name="job.1")) == 10
    ids = [row["id"] for row in project.walk(limit=9)]
    assert ids == sorted(ids, reverse=True) and len(ids) == len(set(ids))
    node.kill()
    node.start(deadline=120)
    project = project.through(login(node))
    assert {row["task_id"]: row for row in project.walk(limit=11)} == rows
    assert project.task(next(iter(rows))) == rows[next(iter(rows))]


def test_a_command_has_one_outcome_and_its_key_replays(node):
    project = Project.create(login(node))
    with Agent(node.url, project.mint(), on_command=succeed_everything).open() as agent:
        body = {"agent_id": agent.minted.id, "engine": "celery", "task_id": "t", "idempotency_key": "k"}
        command = project.issue("retry-task", **body)
        done = eventually(lambda: (c := project.command(command["id"]))["status"] == "succeeded" and c, 20)
        assert project.issue("retry-task", **body)["id"] == command["id"]
        project.issue("cancel-task", expect=409, **body)
        assert len(project.commands()) == 1 and len(agent.command_log) == 1
        node.kill()
        node.start(deadline=120)
        project = project.through(login(node))
        again = project.issue("retry-task", **body)
        assert again["id"] == command["id"] and again["result"] == done["result"]


def test_a_node_with_another_master_secret_refuses_to_start(node, tmp_path):
    twin = Server(tmp_path, store="cql", cql=node.settings["cql_nodes"], keyspace=node.keyspace)
    twin.settings["master_secret"] = "another-secret-another-secret-another"
    with pytest.raises(AssertionError, match="ended with"):
        twin.start(deadline=60)
    twin.stop()
    assert "secret" in twin.log().lower() and "another-secret" not in twin.log()


def test_a_second_process_on_the_same_store_sees_the_same_and_doubles_nothing(node, tmp_path):
    twin = Server(tmp_path, store="cql", cql=node.settings["cql_nodes"], keyspace=node.keyspace, **{
        name: node.settings[name] for name in ("heartbeat_seconds", "command_timeout_seconds", "master_secret")})  # fmt: skip
    twin.start(deadline=120)
    try:
        project = Project.create(login(node))
        far = project.through(login(twin))
        minted = project.mint()
        here, there = Agent(node.url, minted).open(), Agent(twin.url, minted).open()
        one = str(uuid.uuid4())
        here.report(received(one, at=now_text(-3)), deadline=20)
        there.report(started(one, at=now_text(-2)), deadline=20)
        here.report(started(one, at=now_text(-1.95)), succeeded(one, at=now_text(-1)), deadline=20)
        there.report(succeeded(one, at=now_text(-0.95)), deadline=20)
        assert far.task(one) == project.task(one)
        assert project.task(one)["state"] == "succeeded" and len(far.walk()) == 1
        assert sorted(e["kind"] for e in far.events(one)) == ["task.received", "task.started", "task.succeeded"]
        for agent in (here, there):
            agent.on_command = succeed_everything
        body = {"agent_id": minted.id, "engine": "celery", "task_id": "t", "idempotency_key": "k"}
        first = project.issue("retry-task", **body)
        second = far.issue("retry-task", **body)
        assert first["id"] == second["id"]
        eventually(lambda: far.command(first["id"])["status"] == "succeeded", 20)
        assert len(here.command_log) + len(there.command_log) == 1
        here.close()
        there.close()
    finally:
        twin.stop()


def verify(server, **changed):
    """`thalamus audit verify --store cql ...`: its exit code, and what it says."""
    settings = {name: server.settings[name] for name in ("cql_nodes", "cql_keyspace", "master_secret")} | changed
    words = [str(binary()), "audit", "verify", "--store", "cql", "--data-dir", str(server.data)]
    for name, value in settings.items():
        words += ["--" + name.replace("_", "-"), str(value)]
    run = subprocess.run(words, capture_output=True, text=True, timeout=120, env=clean_environment())
    return run.returncode, run.stdout + run.stderr


def entry(server, project, seq):
    """The table and the key of an entry, in the words of CQL: the ledger's tag, the project, its chunk; the seq."""
    key = "06" + uuid.UUID(project.id).hex + (0).to_bytes(8).hex()
    return f"{server.keyspace}.ledger", f"WHERE p = 0x{key} AND c = 0x{seq.to_bytes(8).hex()}"


def test_the_command_line_verifies_every_ledger_of_a_keyspace_and_names_what_was_done_to_it(own_server):
    server = own_server(store="cql", checkpoint_seconds=1)
    whole, cut, torn = [Project.create(login(server)) for _ in range(3)]
    for project in (whole, cut, torn):
        for n in range(6):
            project.mint(f"agent-{n}")
        eventually(lambda: project.get("/audit/verify").json()["unproven_from"] is None, 20)
    heads = {project.id: project.get("/audit/verify").json()["head"] for project in (whole, cut, torn)}
    code, said = verify(server)
    assert code == 0 and "BROKEN" not in said, "beside the server, on a cluster"
    assert "the system:" in said and all(head["hash"] in said for head in heads.values()), said
    server.stop()
    code, said = verify(server)
    assert code == 0 and all(f"project {project.id}, {project.slug}:\nwhole: " in said for project in (whole, cut, torn)), said
    code, said = verify(server, master_secret="another-secret-another-secret-another")
    assert code == 2 and said.startswith("thalamus: not verified") and "another-secret" not in said, said
    code, said = verify(server, cql_keyspace="t_nobody_made_this")
    assert code == 2 and 'there is no keyspace "t_nobody_made_this"' in said, said
    # Somebody with the store's password and no key: an entry is gone in the middle, and a tail is.
    table, third = entry(server, torn, 3)
    execute(server.settings["cql_nodes"], f"DELETE FROM {table} {third}")
    table, last = entry(server, cut, heads[cut.id]["seq"])
    execute(server.settings["cql_nodes"], f"DELETE FROM {table} {last}")
    code, said = verify(server)
    assert code == 1, said
    told = dict(part.split(":\n", 1) for part in said.split("project ")[1:])
    assert told[f"{whole.id}, {whole.slug}"].startswith("whole: "), said
    assert told[f"{torn.id}, {torn.slug}"].startswith("BROKEN at seq 3: gap"), said
    assert told[f"{cut.id}, {cut.slug}"].startswith(f"BROKEN at seq {heads[cut.id]['seq']}: short"), said
    # Bytes that nobody signed, where the entry was.
    table, fourth = entry(server, whole, 4)
    execute(server.settings["cql_nodes"], f"UPDATE {table} SET v = 0x00 {fourth}")
    code, said = verify(server)
    assert code in (1, 2) and f"project {whole.id}, {whole.slug}:\nwhole" not in said, said
