"""Contract D10: a task's id is a ULID, every other id of ours a UUID of version 7, and the same thing keeps its id."""

import re
import uuid

from harness.agent import failed, received, started, succeed_everything, succeeded

ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
OF_THE_AGENT = {"task_id", "new_task_id", "parent_task_id", "root_task_id", "worker_id", "target_id", "event_id", "request_id"}


def ids(value, at=""):
    """Every member that is called an id, with the path to it."""
    if isinstance(value, list):
        for item in value:
            yield from ids(item, at)
    elif isinstance(value, dict):
        for name, member in value.items():
            path = f"{at}.{name}"
            if (name == "id" or name.endswith("_id")) and name not in OF_THE_AGENT and member is not None:
                yield path, member
            else:
                yield from ids(member, path)


def seen(project, admin, agent):
    """Lists of every kind of thing that has an id, after one of each was made."""
    key = admin.get("/api-keys").json()
    paths = (
        "/agents", "/agent-workers", "/workers", f"/agents/{agent.minted.id}/workers", "/queues", "/commands", "/audit",
        "/memberships",
    )  # fmt: skip
    return {
        **{path: project.get(path).json() for path in paths},
        "": project.get("").json(),
        "/api-keys": key,
        "/users": admin.get("/users").json(),
        "/projects": admin.get("/projects").json(),
        "/auth/me": admin.get("/auth/me").json(),
        "/auth/sessions": admin.get("/auth/sessions").json(),
        "system audit": admin.get("/audit").json(),
    }


def test_every_id_of_ours_is_a_uuid_of_version_7_and_a_tasks_a_ulid(sim, project, admin, people):
    agent = sim(on_command=succeed_everything)
    task = str(uuid.uuid4())
    agent.report(received(task), started(task), succeeded(task))
    agent.beat_with_workers("w1@host")
    people.member(project, "viewer")
    admin.post("/api-keys", {"name": "k", "scopes": ["tasks:read"]}, expect=201)
    project.issue("retry-task", agent_id=agent.minted.id, engine="celery", task_id=task)
    first = seen(project, admin, agent)
    count = 0
    for path, answer in first.items():
        found = list(ids(answer))
        assert found, f"{path} shows no id: {answer}"
        count += len(found)
        for member, id in found:
            assert uuid.UUID(id).version == 7 and uuid.UUID(id).variant == uuid.RFC_4122, (path, member, id)
            assert str(uuid.UUID(id)) == id, (path, member, id)
    assert count > 40, count
    again = seen(project, admin, agent)
    for path in ("/workers", "/queues", "/agent-workers"):
        assert [row["id"] for row in first[path]] == [row["id"] for row in again[path]], path
    assert {item["id"] for item in first["/audit"]["items"]} <= {item["id"] for item in again["/audit"]["items"]}
    assert ULID.fullmatch(project.task(task)["id"])


def test_an_event_keeps_the_id_its_agent_gave_and_gets_a_version_7_one_otherwise(sim, project):
    agent, task = sim(), str(uuid.uuid4())
    own = failed(task)
    nameless = {name: member for name, member in started(task).items() if name != "id"}
    agent.report(own, nameless, received(task, id="not-a-uuid"))
    before = {row["kind"]: row["id"] for row in project.events(task)}
    agent.report(nameless, received(task, id="not-a-uuid"), own)
    rows = project.events(task)
    assert {row["kind"]: row["id"] for row in rows} == before and len(rows) == 3, "a re-send is the same event"
    assert before["task.failed"] == own["id"]
    assert {uuid.UUID(before[f"task.{kind}"]).version for kind in ("started", "received")} == {7}
