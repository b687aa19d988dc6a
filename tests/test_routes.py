"""Every route x who asks x own, foreign and unknown project, against a running server: M5, M6, M51, M58, M59, D25, D26.

`harness/routes.json` is the server's own route table; a Rust test keeps it so.
"""

import json
import pathlib
import uuid

import pytest

from conftest import People
from harness.client import Client, Project

ROLES = ["viewer", "auditor", "operator", "admin"]
NO_SUCH_ID = "019d9629-927b-71c8-bfff-ffffffffffff"
NAMES = ("method", "path", "access", "scope", "csrf")
ROWS = json.loads((pathlib.Path(__file__).parent / "harness" / "routes.json").read_text())
GUARDED = [row for row in (dict(zip(NAMES, row)) for row in ROWS) if row["access"] not in ("public", "own")]
BELOW = [row for row in GUARDED if "{slug}" in row["path"]]
ARCHIVE = ("DELETE", "/api/v1/projects/{slug}")


class Cast:
    """Two projects, a member of the first for each role, somebody else, and an administrator of all."""

    def __init__(self, server, admin):
        self.server, self.admin = server, admin
        people = People(server, admin)
        self.own, self.foreign = Project.create(admin), Project.create(admin)
        self.members = {role: people.member(self.own, role).client for role in ROLES}
        self.outsider, _ = people.user()
        email, password = f"root-{uuid.uuid4().hex[:8]}@example.com", "Quiet-Harbour-5-Lamp"
        admin.post("/users", {"email": email, "password": password, "is_admin": True}, expect=201)
        self.root = Client(server.url).login(email, password)

    def key(self, client, scopes, **more):
        minted = client.post("/api-keys", {"name": "k", "scopes": scopes, **more}, expect=201).json()
        return Client(self.server.url, key=minted["token"])

    def entries(self):
        """How many refusals stand in the project's ledger."""
        return len(self.own.audit(outcome="deny", limit=5000))


@pytest.fixture(scope="module")
def cast(server, admin):
    return Cast(server, admin)


def ask(row, client, slug, **more):
    path = row["path"].replace("{slug}", slug).replace("{engine}", "celery")
    while "{" in path:
        path = path[: path.index("{")] + NO_SUCH_ID + path[path.index("}") + 1 :]
    body = {} if row["method"] in ("GET", "DELETE") else {"json": {}}
    return client.request(row["method"], path, expect=None, **body, **more)


def what(row, answer):
    return f"{row['method']} {row['path']}: {answer.status_code} {answer.text[:300]}"


def admitted(answer):
    """Whatever the handler said, it was not about who is asking."""
    hidden = answer.status_code == 404 and answer.json()["message"] == "project not found"
    return answer.status_code not in (401, 403) and not hidden


def lasting(rows):
    """Without those that would end the caller's session, or the project that the others need."""
    ends = ("/auth/logout", "/auth/sessions/revoke-others")
    return [row for row in rows if not row["path"].endswith(ends) and (row["method"], row["path"]) != ARCHIVE]


def test_nobody_gets_through_without_saying_who(cast, server):
    callers = [Client(server.url), Client(server.url, key="z4k_made-up"), Client(server.url, key="x")]
    for row in GUARDED:
        for caller in callers:
            answer = ask(row, caller, cast.own.slug)
            assert answer.status_code == 401, what(row, answer)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_reaches_what_its_row_says_and_each_refusal_is_one_entry(cast, role):
    before, refused = cast.entries(), 0
    for row in [*lasting(GUARDED), *[row for row in GUARDED if (row["method"], row["path"]) == ARCHIVE]]:
        answer = ask(row, cast.members[role], cast.own.slug)
        need = row["access"]
        may = {
            "session": True, "user": True, "global_admin": False, "auditor or admin": role in ("auditor", "admin"),
        }.get(need, need in ROLES and ROLES.index(role) >= ROLES.index(need))  # fmt: skip
        assert admitted(answer) == may, what(row, answer)
        if not may:
            details = answer.json()["details"]
            assert answer.status_code == 403, what(row, answer)
            assert details["need"] == need.removesuffix(" or admin"), what(row, answer)
            assert details["have"] == (role if "{slug}" in row["path"] else "user"), what(row, answer)
            refused += "{slug}" in row["path"]
    assert refused >= 1, "at least archiving"
    assert cast.entries() == before + refused


def test_a_global_administrator_reaches_everything(cast):
    for row in lasting(GUARDED):
        answer = ask(row, cast.root, cast.own.slug)
        assert admitted(answer), what(row, answer)


def test_a_foreign_project_and_an_unknown_one_are_byte_for_byte_alike(cast):
    before = cast.entries()

    def bare(answer):
        request = answer.headers["x-request-id"]
        headers = {name for name in answer.headers}
        return answer.status_code, answer.text.replace(request, ""), headers

    for row in BELOW:
        for caller in (cast.outsider, cast.members["admin"]):
            foreign = ask(row, caller, cast.foreign.slug)
            assert foreign.status_code == 404, what(row, foreign)
            assert cast.foreign.slug not in foreign.text, what(row, foreign)
            for slug in ("no-such-project", "No_Slug", "x" * 60):
                unknown = ask(row, caller, slug)
                assert bare(unknown) == bare(foreign), what(row, unknown)
    assert cast.entries() == before


def test_a_session_without_its_token_or_from_elsewhere_changes_nothing_and_is_an_entry_of_its_members(cast):
    changing = [row for row in GUARDED if row["csrf"]]
    foreign_token = {"x-csrf-token": cast.outsider.csrf}
    for caller, is_member in ((cast.members["admin"], True), (cast.outsider, False)):
        before, refused = cast.entries(), 0
        for row in changing:
            asked = [
                (ask(row, caller, cast.own.slug, csrf=False), "csrf_mismatch"),
                (ask(row, caller, cast.own.slug, headers={"origin": "https://evil.example"}), "origin_mismatch"),
            ]
            if is_member:
                asked.append((ask(row, caller, cast.own.slug, csrf=False, headers=foreign_token), "csrf_mismatch"))
            for answer, reason in asked:
                assert answer.status_code == 403 and answer.json()["details"]["reason"] == reason, what(row, answer)
                refused += is_member and "{slug}" in row["path"]
        assert cast.entries() == before + refused


def test_a_key_reaches_what_its_scope_says_and_no_more(cast):
    admin_only = {"users:read", "users:write", "projects:write", "admin:*"}
    every = cast.root.get("/api-keys/scopes").json()["scopes"]
    assert admin_only <= set(every)
    for scope in sorted({row["scope"] for row in GUARDED if row["scope"]}):
        group = scope.split(":")[0]
        rest = [other for other in every if other != "admin:*" and other.split(":")[0] != group]
        has = [scope] if scope in every else ["admin:*"]
        lacking, having = cast.key(cast.root, rest), cast.key(cast.root, has)
        for row in lasting(row for row in GUARDED if row["scope"] == scope):
            answer = ask(row, lacking, cast.own.slug)
            assert answer.status_code == 403 and answer.json()["details"]["required_scope"] == scope, what(row, answer)
            assert admitted(ask(row, having, cast.own.slug)), what(row, answer)
    everything = cast.key(cast.root, ["admin:*"])
    for row in [row for row in GUARDED if row["scope"] is None]:
        answer = ask(row, everything, cast.own.slug)
        assert answer.status_code == 403 and answer.json()["details"]["reason"] == "api_key_not_accepted", what(row, answer)


def test_a_key_of_one_project_opens_no_other_and_one_of_a_network_only_from_there(cast):
    bound = cast.key(cast.root, ["admin:*"], project_id=cast.foreign.id)
    elsewhere = cast.key(cast.members["viewer"], ["tasks:read"], allowed_cidrs=["192.0.2.0/24", "2001:db8::/32"])
    before, refused = cast.entries(), 0
    for row in lasting(row for row in BELOW if row["scope"]):
        own, unknown = ask(row, bound, cast.own.slug), ask(row, bound, "no-such-project")
        for answer in (own, unknown):
            assert answer.status_code == 403 and answer.json()["details"]["reason"] == "project_mismatch", what(row, answer)
        answer = ask(row, elsewhere, cast.own.slug)
        assert answer.status_code == 403 and answer.json()["details"]["reason"] == "ip_denied", what(row, answer)
        refused += 2
    assert cast.entries() == before + refused
    here = cast.key(cast.members["viewer"], ["tasks:read"], allowed_cidrs=["127.0.0.0/8", "::1"])
    assert here.get(cast.own.path("/tasks")).json()["items"] == []
