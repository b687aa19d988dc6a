"""Accounts from outside: users, locks, sessions, passwords, memberships, archived projects (REST sections 1.2, 1.3, 4)."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import login
from harness.agent import Agent, Refusal
from harness.client import Client, Project
from harness.wait import eventually

PASSWORD, NEW = "Quiet-Harbour-5-Lamp", "Brand-New-Horse-8"


@pytest.fixture
def ann(server, admin):
    """A user of this test's own: (client, row)."""
    email = f"ann-{uuid.uuid4().hex[:10]}@example.com"
    row = admin.post("/users", {"email": email, "password": PASSWORD, "first_name": "Ann"}, expect=201).json()
    with Client(server.url) as client:
        yield client.login(email, PASSWORD), row


def log_in(server, email, password):
    """The status of one attempt, from an address of its own."""
    with Client(server.url) as client:
        return client.post("/auth/login", {"email": email, "password": password}, expect=None).status_code


def test_ten_failures_lock_the_account_and_a_reset_opens_it(server, admin, ann):
    _, row = ann
    assert [log_in(server, row["email"], "wrong") for _ in range(10)] == [401] * 10
    assert log_in(server, row["email"], PASSWORD) == 401, "locked, and it does not say so"
    assert log_in(server, row["email"].upper(), PASSWORD) == 401, "under every spelling"
    failures = admin.get("/audit", action_prefix="auth.login_failed", target_id=row["id"], limit=50).json()["items"]
    assert len(failures) == 11 + 1 and all(item["outcome"] == "allow" and item["result"] == "failure" for item in failures)
    admin.post(f"/users/{row['id']}/reset-password", {"new_password": NEW}, expect=204)
    assert log_in(server, row["email"], PASSWORD) == 401 and log_in(server, row["email"], NEW) == 200


def test_a_new_password_must_fit_the_policy_and_ends_the_other_sessions(server, ann):
    here, row = ann
    there = Client(server.url).login(row["email"], PASSWORD)
    policy = here.get("/auth/policy").json()
    assert policy["min_length"] == 12
    change = lambda old, new, expect: here.post(  # noqa: E731
        "/auth/change-password", {"current_password": old, "new_password": new}, expect=expect
    )
    for weak in ("Short1!", "alllowercaseletters", "lowercase123456", "x" * 300):
        change(PASSWORD, weak, 422)
    assert change("not-the-old-one-9", NEW, None).status_code in (401, 403, 409, 422)
    there.get("/auth/me")
    change(PASSWORD, NEW, 204)
    here.get("/auth/me")
    there.get("/auth/me", expect=401)
    assert log_in(server, row["email"], PASSWORD) == 401 and log_in(server, row["email"], NEW) == 200


def test_sessions_are_listed_and_ended_one_by_one_and_all_others(server, ann, people):
    here, row = ann
    others = [Client(server.url).login(row["email"], PASSWORD) for _ in range(3)]
    listed = here.get("/auth/sessions").json()
    assert len(listed) == 4 and [one["is_current"] for one in listed].count(True) == 1
    theirs = {one["id"] for one in others[0].get("/auth/sessions").json() if one["is_current"]}
    stranger, _ = people.user()
    stranger.post(f"/auth/sessions/{next(iter(theirs))}/revoke", {}, expect=404)
    here.post(f"/auth/sessions/{next(iter(theirs))}/revoke", {}, expect=204)
    others[0].get("/auth/me", expect=401)
    others[1].get("/auth/me")
    here.post("/auth/sessions/revoke-others", {}, expect=204)
    for other in others:
        other.get("/auth/me", expect=401)
    assert [one["is_current"] for one in here.get("/auth/sessions").json()] == [True]


def test_who_may_no_longer_is_out_at_once(server, admin, ann, project):
    client, row = ann
    project.post("/memberships", {"user_id": row["id"], "role": "admin"}, expect=201)
    key = Client(server.url, key=client.post("/api-keys", {"name": "k", "scopes": ["tasks:read"]}, expect=201).json()["token"])
    key.get(project.path("/tasks"))
    admin.request("PATCH", f"/users/{row['id']}", json={"is_active": False})
    for caller in (client, key):
        caller.get(project.path("/tasks"), expect=401)
    assert log_in(server, row["email"], PASSWORD) == 401
    admin.request("PATCH", f"/users/{row['id']}", json={"is_active": True})
    assert log_in(server, row["email"], PASSWORD) == 200
    admin.delete(f"/users/{row['id']}")
    key.get(project.path("/tasks"), expect=401)
    admin.get(f"/users/{row['id']}", expect=404)
    assert all(one["user_id"] != row["id"] for one in project.get("/memberships").json())


def test_a_role_counts_from_the_next_request_on_and_every_change_is_an_entry(ann, project, admin):
    client, row = ann
    her = project.through(client)
    her.get("/tasks", expect=404)
    made = project.post("/memberships", {"user_id": row["id"], "role": "viewer"}, expect=201).json()
    assert (made["user_email"], made["role"], made["project_id"]) == (row["email"], "viewer", project.id)
    project.post("/memberships", {"user_id": row["id"], "role": "admin"}, expect=409)
    project.post("/memberships", {"user_id": row["id"], "role": "boss"}, expect=409)
    her.get("/tasks")
    her.get("/memberships", expect=403)
    path = project.path(f"/memberships/{made['id']}")
    Project.create(admin).get(f"/memberships/{made['id']}", expect=(404, 405))
    admin.request("PATCH", path, json={"role": "admin"})
    assert [one["role"] for one in her.get("/memberships").json()] == ["admin"]
    assert {"project_slug": project.slug, "role": "admin"}.items() <= client.get("/auth/me").json()["memberships"][0].items()
    admin.delete(path)
    her.get("/tasks", expect=404)
    admin.delete(path, expect=404)
    changes = [item["action"] for item in project.audit(action_prefix="membership.")]
    assert changes == ["membership.revoked", "membership.changed", "membership.granted"]


def test_an_archived_project_is_gone_for_everybody_and_its_agents_are_sent_away(server, admin, sim, project, people):
    agent, member = sim(), people.member(project, "admin")
    admin.request("PATCH", project.path(), json={"name": "Last words"})
    member.client.request("PATCH", project.path(), json={"description": "by its admin"})
    member.client.delete(project.path(), expect=403)
    admin.delete(project.path())
    assert agent.wait_closed() == 4003
    unknown = admin.get("/projects/no-such-project/tasks", expect=404)
    for caller in (admin, member.client):
        for rest in ("", "/tasks", "/commands", "/agents", "/audit", "/stats"):
            gone = caller.get(project.path(rest), expect=404)
            assert gone.json()["message"] == unknown.json()["message"] and project.slug not in gone.text
    assert project.slug not in [row["slug"] for row in admin.get("/projects").json()]
    admin.delete(project.path(), expect=404)
    with pytest.raises(Refusal):
        Agent(server.url, agent.minted).open()
    created = admin.get("/audit", action_prefix="project.", target_id=project.slug).json()["items"]
    assert [item["action"] for item in created] == ["project.archived", "project.created"]


def test_the_last_administrator_can_neither_go_nor_step_down(own_server):
    server = own_server()
    admin = login(server)
    me = admin.user["id"]
    for change in ({"is_admin": False}, {"is_active": False}):
        admin.request("PATCH", f"/users/{me}", expect=409, json=change)
    admin.delete(f"/users/{me}", expect=409)
    second = admin.post("/users", {"email": "b@example.com", "password": PASSWORD, "is_admin": True}, expect=201).json()
    admin.request("PATCH", f"/users/{me}", json={"is_admin": False})
    admin.get("/users", expect=403)
    with Client(server.url).login("b@example.com", PASSWORD) as other:
        assert {row["email"] for row in other.get("/users").json()} == {"admin@example.com", "b@example.com"}
        other.delete(f"/users/{second['id']}", expect=409)


def test_an_expired_or_foreign_key_is_told_apart_from_none(server, ann, people):
    client, _ = ann
    made = client.post("/api-keys", {"name": "k", "scopes": ["tasks:read"], "expires_in_days": 1}, expect=201).json()
    assert made["expires_at"] > made["created_at"] and made["token"].startswith(made["prefix"])
    listed = client.get("/api-keys").json()
    assert [one["id"] for one in listed] == [made["id"]] and "token" not in listed[0]
    stranger, _ = people.user()
    stranger.delete(f"/api-keys/{made['id']}", expect=404)
    client.delete(f"/api-keys/{made['id']}")
    answer = Client(server.url, key=made["token"]).get("/projects", expect=401)
    assert answer.json()["details"] == {"reason": "revoked"}
    assert eventually(lambda: client.get("/api-keys").json() == [], 5)


def test_two_administrators_who_demote_each_other_at_once_leave_one(own_server):
    server = own_server()
    root = login(server)
    row = root.post("/users", {"email": "b@example.com", "password": PASSWORD, "is_admin": True}, expect=201).json()
    other = Client(server.url).login("b@example.com", PASSWORD)
    ids = {root: row["id"], other: root.user["id"]}
    for _ in range(8):
        with ThreadPoolExecutor(2) as pool:
            demote = lambda one: one.request("PATCH", f"/users/{ids[one]}", expect=None, json={"is_admin": False})  # noqa: E731
            answers = dict(zip(ids, pool.map(demote, ids)))
        done = [one for one, answer in answers.items() if answer.status_code == 200]
        assert len(done) == 1, {answer.status_code: answer.text for answer in answers.values()}
        done[0].request("PATCH", f"/users/{ids[done[0]]}", json={"is_admin": True})


def test_an_account_that_is_shut_while_its_password_is_hashed_stays_shut(server, admin, ann):
    client, row = ann
    with ThreadPoolExecutor(1) as pool:
        body = {"current_password": PASSWORD, "new_password": NEW}
        changing = pool.submit(client.post, "/auth/change-password", body, expect=None)
        time.sleep(0.05)
        admin.request("PATCH", f"/users/{row['id']}", json={"is_active": False})
        changing.result()
    assert admin.get(f"/users/{row['id']}").json()["is_active"] is False
    client.get("/auth/me", expect=401)


def test_an_archived_project_stays_so_whatever_was_on_its_way(admin, project):
    def slowly():
        yield b'{"name": '
        time.sleep(0.5)
        admin.delete(project.path())
        yield b'"Back again"}'

    late = Client(admin.url)
    late.http.cookies.update(admin.http.cookies)
    answer = late.request(
        "PATCH", project.path(), expect=None, content=slowly(), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 404, answer.text
    admin.get(project.path(), expect=404)


def test_what_is_taken_away_does_not_come_back_by_a_change_at_the_same_time(server, admin, ann, project):
    client, row = ann
    for _ in range(12):
        member = project.post("/memberships", {"user_id": row["id"], "role": "viewer"}, expect=201).json()
        key = client.post("/api-keys", {"name": "k", "scopes": ["tasks:read"]}, expect=201).json()
        path = project.path(f"/memberships/{member['id']}")
        with ThreadPoolExecutor(4) as pool:
            pool.submit(admin.request, "PATCH", path, expect=None, json={"role": "admin"})
            pool.submit(admin.request, "DELETE", path, expect=None)
            pool.submit(client.request, "PATCH", f"/api-keys/{key['id']}", expect=None, json={"name": "other"})
            pool.submit(client.request, "DELETE", f"/api-keys/{key['id']}", expect=None)
        assert project.get("/memberships").json() == []
        assert client.get("/api-keys").json() == []
        Client(server.url, key=key["token"]).get(project.path("/tasks"), expect=401)
