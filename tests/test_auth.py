"""Sessions, CSRF, API keys and projects."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import login
from harness.client import Client, Project
from harness.server import ADMIN_EMAIL, ADMIN_PASSWORD, Server, binary, clean_environment


def test_health_is_public(server):
    with Client(server.url) as nobody:
        for path in ("/health", "/api/v1/health"):
            assert nobody.get(path).json()["status"] == "ok"
        for path in ("/health/ready", "/api/v1/health/ready"):
            body = nobody.get(path).json()
            assert body["status"] == "ready" and body["durability"] in ("synced", "replicated")


def test_login_gives_a_session_and_me(server):
    with Client(server.url) as client:
        answer = client.request("POST", "/auth/login", json={"email": ADMIN_EMAIL, "password": ADMIN_PASSWORD})
        body = answer.json()
        assert body["user"]["email"] == ADMIN_EMAIL and body["user"]["is_admin"] is True
        assert body["mfa_required"] is False
        cookies = answer.headers.get_list("set-cookie")
        session = next(c for c in cookies if "session" in c.split("=")[0])
        csrf = next(c for c in cookies if "csrf" in c.split("=")[0])
        assert "httponly" in session.lower() and "samesite=lax" in session.lower()
        assert "httponly" not in csrf.lower() and "samesite=strict" in csrf.lower()
        me = client.get("/auth/me")
        assert me.json()["email"] == ADMIN_EMAIL and "memberships" in me.json()
        assert "no-store" in me.headers["cache-control"]


@pytest.mark.parametrize("email, password", [(ADMIN_EMAIL, "wrong-Password-1"), ("nobody@example.com", ADMIN_PASSWORD), (ADMIN_EMAIL.upper() + "x", "x")])
def test_wrong_credentials_look_the_same_and_take_their_time(server, email, password):
    with Client(server.url) as client:
        begun = time.monotonic()
        answer = client.request("POST", "/auth/login", expect=401, json={"email": email, "password": password})
        assert time.monotonic() - begun >= 0.25
        body = answer.json()
        assert body["error"] == "unauthenticated" and body["message"] == "invalid_credentials"
        assert not client.http.cookies


def test_guessing_from_one_address_is_slowed_down(server):
    """Twenty tries a minute from one address; others are not disturbed."""
    from concurrent.futures import ThreadPoolExecutor

    from harness.server import own_address

    with Client(server.url, address=own_address()) as guesser, ThreadPoolExecutor(10) as pool:
        def guess(n):
            body = {"email": f"guess-{n}@example.com", "password": "Wrong-Password-1"}
            return guesser.request("POST", "/auth/login", expect=(401, 429), json=body)

        answers = list(pool.map(guess, range(30)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) == 10
    assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in refused)
    login(server).close()


def test_logout_ends_the_session_on_the_server(server):
    client = login(server)
    kept = dict(client.http.cookies)
    client.request("POST", "/auth/logout", expect=204)
    with Client(server.url) as thief:
        thief.http.cookies.update(kept)
        thief.get("/auth/me", expect=401)


@pytest.mark.parametrize("token", [None, "", "x", "0" * 64])
def test_a_change_without_the_right_csrf_token_is_refused(admin, project, token):
    headers = {} if token is None else {"x-csrf-token": token}
    answer = admin.request("POST", project.path("/agents"), expect=403, csrf=False, json={"name": "x"}, headers=headers)
    assert answer.json()["error"] == "forbidden" and answer.json()["details"]["reason"] == "csrf_mismatch"
    assert project.agents() == []


def test_a_csrf_token_of_another_session_is_refused(server, admin, project):
    other = login(server)
    admin.request("POST", project.path("/agents"), expect=403, csrf=False, json={"name": "x"}, headers={"x-csrf-token": other.csrf})
    other.close()


def test_a_change_without_any_session_is_401(server, project):
    with Client(server.url) as nobody:
        nobody.post(project.path("/agents"), {"name": "x"}, expect=401)
        nobody.get("/projects", expect=401)
        nobody.get("/auth/me", expect=401)


def test_projects_are_created_listed_and_fetched(admin):
    project = Project.create(admin)
    row = admin.get(f"/projects/{project.slug}").json()
    assert row["id"] == project.id and row["slug"] == project.slug and row["is_active"] is True
    listed = admin.get("/projects").json()
    slugs = [one["slug"] for one in (listed["items"] if isinstance(listed, dict) else listed)]
    assert project.slug in slugs and "default" in slugs, "a project named default exists from the start"
    admin.post("/projects", {"slug": project.slug, "name": "again"}, expect=409)


def test_of_equal_things_made_at_once_one_is_made(server, admin, project, people):
    _, user_id = people.user()
    slug, email = "p-" + uuid.uuid4().hex[:12], f"{uuid.uuid4().hex}@example.com"
    makes = [
        ("/projects", {"slug": slug, "name": "P"}),
        (project.path("/agents"), {"name": "one"}),
        ("/users", {"email": email, "password": "Quiet-Harbour-5-Lamp"}),
        (project.path("/memberships"), {"user_id": user_id, "role": "viewer"}),
    ]
    clients = [login(server) for _ in range(6)]
    with ThreadPoolExecutor(len(clients)) as pool:
        for path, body in makes:
            made = list(pool.map(lambda one: one.post(path, body, expect=(201, 409)).status_code, clients))
            assert sorted(made) == [201] + [409] * 5, path
    member = project.get("/memberships").json()[0]
    admin.delete(project.path(f"/memberships/{member['id']}"))
    project.post("/memberships", {"user_id": user_id, "role": "operator"}, expect=201)
    for client in clients:
        client.close()


@pytest.mark.parametrize("slug", ["", "a", "ab", "-ab", "ab-", "Ab", "a_b", "a b", "é-é", "a" * 51, "a.b", "../x", 5, None])
def test_a_bad_slug_is_refused(admin, slug):
    admin.post("/projects", {"slug": slug, "name": "x"}, expect=(409, 422))


def test_api_keys_are_shown_once_and_die_when_revoked(admin, server, project):
    made = admin.post("/api-keys", {"name": "reader", "scopes": ["tasks:read"]}, expect=201).json()
    assert made["token"].startswith("z4k_") and made["prefix"] == made["token"][:8]
    assert made["token"] not in admin.get("/api-keys").text
    with Client(server.url, key=made["token"]) as client:
        client.get(project.path("/tasks"))
        client.get(project.path("/agents"), expect=403)
        client.post(project.path("/commands/retry-task"), {}, expect=403)
        client.get("/auth/me", expect=403)
    admin.delete(f"/api-keys/{made['id']}")
    with Client(server.url, key=made["token"]) as client:
        client.get(project.path("/tasks"), expect=401)
    assert made["token"] not in server.log()


def test_write_implies_read_and_unknown_scopes_are_refused(admin, server, project):
    made = admin.post("/api-keys", {"name": "w", "scopes": ["commands:write"]}, expect=201).json()
    with Client(server.url, key=made["token"]) as client:
        client.get(project.path("/commands"))
        client.get(project.path("/tasks"), expect=403)
    admin.post("/api-keys", {"name": "x", "scopes": ["tasks:fly"]}, expect=(409, 422))
    admin.post("/api-keys", {"name": "", "scopes": []}, expect=422)


def test_a_key_bound_to_a_project_opens_no_other(admin, server, project):
    made = admin.post("/api-keys", {"name": "b", "scopes": ["tasks:read"], "project_id": project.id}, expect=201).json()
    other = Project.create(admin)
    with Client(server.url, key=made["token"]) as client:
        client.get(project.path("/tasks"))
        client.get(other.path("/tasks"), expect=(403, 404))


def test_the_admin_password_is_printed_once_when_none_is_given(tmp_path):
    import re
    import subprocess

    server = Server(tmp_path / "fresh")
    words = server.arguments()
    for flag in ("--admin-email", "--admin-password"):
        place = words.index(flag)
        del words[place : place + 2]
    log = open(server.log_path, "ab")
    server.process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, env=clean_environment(NO_COLOR="1"), cwd=server.folder)
    log.close()
    try:
        server.wait_for_log(server.url, 30)
        shown = server.wait_for_log("password", 10) and server.log()
        email = re.search(r"[\w.+-]+@[\w.-]+", shown).group(0)
        password = re.search(r"password\W+(\S{12,})", shown, re.IGNORECASE).group(1).strip("\"'`,.()")
        assert _logs_in(server, email, password), shown
        server.terminate()
        server.log_path.unlink()
        log = open(server.log_path, "ab")
        server.process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, env=clean_environment(NO_COLOR="1"), cwd=server.folder)
        log.close()
        server.wait_for_log(server.url, 30)
        assert _logs_in(server, email, password)
        assert password not in server.log(), "shown a second time"
    finally:
        server.stop()


def _logs_in(server, email, password):
    with Client(server.url) as client:
        answer = client.request("POST", "/auth/login", expect=None, json={"email": email, "password": password[:256]})
        return answer.status_code == 200


@pytest.mark.parametrize(
    "flags, names",
    [
        (["--listen", "nowhere"], ["listen", "nowhere"]),
        (["--store", "tape"], ["store", "tape", "embedded", "cql"]),
        (["--page-size-default", "0"], ["page-size-default"]),
        (["--command-timeout-seconds", "soon"], ["command-timeout-seconds", "soon"]),
        (["--heartbeat-seconds", "0"], ["heartbeat-seconds"]),
        (["--store", "cql"], ["cql-nodes"]),
        (["--no-such-flag", "1"], ["no-such-flag"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_wrong_setting_names_the_key_and_nothing_starts(tmp_path, flags, names):
    import subprocess

    done = subprocess.run(
        [str(binary()), "serve", "--data-dir", str(tmp_path / "data"), *flags],
        capture_output=True, text=True, timeout=20, env=clean_environment(),
    )  # fmt: skip
    assert done.returncode != 0
    for name in names:
        assert name in done.stderr, done.stderr
    assert "panicked" not in done.stderr
    assert not (tmp_path / "data").exists(), "a data folder was made although nothing started"


def test_every_setting_is_also_a_variable_and_a_file_key_and_the_flag_wins(own_server, tmp_path):
    file = tmp_path / "thalamus.toml"
    file.write_text("page-size-default = 3\n")
    import os
    from unittest import mock

    server = own_server(config=str(file))
    assert _page_size(server) == 3
    server.stop()
    with mock.patch("harness.server.clean_environment", lambda **more: {**clean_environment(**more), "THALAMUS_PAGE_SIZE_DEFAULT": "4"}):
        server.start()
        assert _page_size(server) == 4
        server.stop()
        server.settings["page_size_default"] = 5
        server.start()
        assert _page_size(server) == 5
    assert os.environ.get("THALAMUS_PAGE_SIZE_DEFAULT") is None


def _page_size(server):
    from harness.agent import Agent, received

    project = Project.create(login(server))
    with Agent(server.url, project.mint()).open() as agent:
        agent.wait_ack(agent.batch(*[received(str(uuid.uuid4())) for _ in range(9)]))
    return len(project.tasks())


def test_help_teaches():
    import subprocess

    for words in (["--help"], ["serve", "--help"]):
        done = subprocess.run([str(binary()), *words], capture_output=True, text=True, timeout=20, check=True)
        assert "serve" in done.stdout or "--listen" in done.stdout
    for flag in ("--listen", "--data-dir", "--admin-email", "--store", "--cql-nodes", "--command-timeout-seconds", "--retention-days"):
        assert flag in done.stdout
    assert "THALAMUS_LISTEN" in done.stdout
