"""`thalamus admin`: accounts when nobody can log in. On the embedded store beside a stopped server, on Cassandra beside any."""

import re
import subprocess

import pytest

from conftest import login
from harness.client import Client
from harness.server import ADMIN_EMAIL, ADMIN_PASSWORD, binary, clean_environment

NEW = "Brand-New-Horse-8"


def admin(server, *words, typed=None, **changed):
    """Runs it on the server's store: its exit code, and what it says."""
    names = ("cql_nodes", "cql_keyspace", "master_secret")
    settings = {name: server.settings[name] for name in names if name in server.settings} | changed
    words = [str(binary()), "admin", *words, "--store", server.store, "--data-dir", str(server.data)]
    for name, value in settings.items():
        words += ["--" + name.replace("_", "-"), str(value)]
    run = subprocess.run(words, capture_output=True, text=True, timeout=120, input=typed, env=clean_environment())
    return run.returncode, run.stdout + run.stderr


def status(server, email, password):
    with Client(server.url) as client:
        return client.post("/auth/login", {"email": email, "password": password}, expect=None).status_code


def test_a_password_is_reset_and_a_user_made_and_both_stand_in_the_systems_chain(own_server):
    server = own_server(checkpoint_seconds=1)
    old = login(server)
    for _ in range(10):
        assert status(server, ADMIN_EMAIL, "wrong") == 401
    assert status(server, ADMIN_EMAIL, ADMIN_PASSWORD) == 401, "locked"
    server.stop()
    code, said = admin(server, "reset-password", "--email", ADMIN_EMAIL.upper())
    assert code == 0, said
    password = re.search(r"^password (\S+)$", said, re.M).group(1)
    code, said = admin(server, "create-user", "--email", "bob@example.com", "--global-admin", "--password-stdin", typed=NEW + "\n")
    assert code == 0 and NEW not in said, said
    code, said = admin(server, "create-user", "--email", "bob@example.com")
    assert code != 0 and "taken" in said, said
    code, said = admin(server, "list-users")
    assert code == 0 and re.search(r"bob@example.com +global admin", said), said
    server.start()
    old.get("/auth/me", expect=401)
    assert status(server, ADMIN_EMAIL, ADMIN_PASSWORD) == 401
    root = Client(server.url).login(ADMIN_EMAIL, password)
    bob = Client(server.url).login("bob@example.com", NEW)
    made, changed = root.get("/audit", action_prefix="user.", limit=2).json()["items"]
    assert (made["action"], made["target_id"]) == ("user.granted", bob.user["id"])
    assert made["metadata"] == {"before": None, "after": "global_admin"}
    assert (changed["action"], changed["target_id"]) == ("user.changed", root.user["id"])
    assert all(item["actor"] == "system" and item["user_agent"] == "thalamus admin" for item in (made, changed))
    verdict = root.get("/audit/verify").json()
    assert verdict["ok"] and verdict["first_bad"] is None


@pytest.mark.parametrize(
    "words, typed, says",
    [
        (("reset-password", "--email", "nobody@example.com"), None, "there is no user"),
        (("reset-password", "--email", "nonsense"), None, "no e-mail address"),
        (("create-user", "--email", "c@example.com", "--password-stdin"), "short\n", "12 to 256 characters"),
        (("list-users",), None, "admin@example.com"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(own_server, words, typed, says):
    server = own_server()
    server.stop()
    code, said = admin(server, *words, typed=typed)
    assert (code == 0) == (words[0] == "list-users") and says in said, said
    assert admin(server, "list-users")[1].count("\n") == 1
    server.start()
    assert status(server, ADMIN_EMAIL, ADMIN_PASSWORD) == 200


@pytest.mark.embedded
def test_beside_a_running_server_the_embedded_store_is_not_touched(own_server):
    server = own_server(store="embedded")
    code, said = admin(server, "reset-password", "--email", ADMIN_EMAIL)
    assert code != 0 and "stop the server" in said, said
    assert status(server, ADMIN_EMAIL, ADMIN_PASSWORD) == 200


@pytest.mark.cql
def test_beside_a_running_server_on_cassandra_both_append_to_one_chain(own_server):
    server = own_server(store="cql", checkpoint_seconds=1)
    code, said = admin(server, "create-user", "--email", "d@example.com", "--password-stdin", typed=NEW)
    assert code == 0, said
    assert status(server, "d@example.com", NEW) == 200
    code, said = admin(server, "list-users", master_secret="another-secret-another-secret-another")
    assert code != 0 and "master secret" in said, said
    root = login(server)
    assert root.get("/audit", action_prefix="user.granted").json()["items"][0]["actor"] == "system"
    verdict = root.get("/audit/verify").json()
    assert verdict["ok"] and verdict["checked"] == verdict["head"]["seq"]
