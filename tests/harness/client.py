"""A REST client that checks what every answer must keep: the error envelope, the request id, the security headers."""

import json
import uuid

import httpx

from harness.server import own_address

API = "/api/v1"


class Refused(AssertionError):
    """An answer had another status than the test expects."""


def check_common(response):
    """What holds for every answer whatever its status (D27)."""
    assert response.headers.get("x-request-id"), f"no X-Request-Id on {response.request.method} {response.request.url}"
    assert response.headers.get("x-content-type-options") == "nosniff"
    kind = response.headers.get("content-type", "")
    assert "html" not in kind, f"HTML from {response.request.url}"
    if response.status_code >= 400:
        check_envelope(response)


def check_envelope(response):
    """The application envelope with RFC 9457's members, and nothing of our insides."""
    where = f"{response.request.method} {response.request.url} -> {response.status_code}: {response.text[:500]}"
    assert response.headers["content-type"].split(";")[0] == "application/problem+json", where
    body = response.json()
    for member in ("error", "message", "request_id", "details", "type", "title", "status", "detail"):
        assert member in body, f"no `{member}`: {where}"
    assert body["status"] == response.status_code, where
    assert isinstance(body["error"], str) and body["error"], where
    assert isinstance(body["message"], str) and body["message"], where
    assert isinstance(body["details"], dict), where
    assert body["request_id"] == response.headers["x-request-id"], where
    if isinstance(body["detail"], list):
        for item in body["detail"]:
            assert {"loc", "msg", "type"} <= set(item), where
    else:
        assert isinstance(body["detail"], str), where
    for leak in ("panicked", "stack backtrace", ".rs:", "RUST_BACKTRACE"):
        assert leak not in response.text, where


class Client:
    """One person's session, or one API key."""

    def __init__(self, url, key=None, timeout=30.0, address=None):
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self.url = url
        transport = httpx.HTTPTransport(local_address=address or own_address())
        self.http = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport)
        self.user = None

    def close(self):
        self.http.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def login(self, email, password):
        answer = self.request("POST", "/auth/login", json={"email": email, "password": password}, csrf=False)
        self.user = answer.json()["user"]
        return self

    @property
    def csrf(self):
        """The CSRF token of this session, None without one."""
        for cookie in self.http.cookies.jar:
            if cookie.name.endswith("csrf"):
                return cookie.value
        return None

    def request(self, method, path, expect=200, csrf=True, **more):
        """Sends a request below /api/v1 and asserts its status; `expect` may be a tuple, or None for any."""
        headers = dict(more.pop("headers", {}))
        if csrf and self.csrf and method not in ("GET", "HEAD", "OPTIONS"):
            headers["x-csrf-token"] = self.csrf
        full = path if path.startswith(("/api/", "/health", "/metrics", "/ws/")) else API + path
        response = self.http.request(method, full, headers=headers, **more)
        check_common(response)
        wanted = (expect,) if isinstance(expect, int) else expect
        if wanted is not None and response.status_code not in wanted:
            raise Refused(
                f"{method} {response.request.url} answered {response.status_code}, not {expect}: {response.text[:1500]}"
            )
        return response

    def get(self, path, expect=200, **params):
        clean = {name: value for name, value in params.items() if value is not None}
        return self.request("GET", path, expect=expect, params=clean)

    def post(self, path, body=None, expect=(200, 201, 202), **more):
        return self.request("POST", path, expect=expect, json=body, **more)

    def delete(self, path, expect=204, **more):
        return self.request("DELETE", path, expect=expect, **more)

class Minted:
    """An agent's row with the two values that are shown once."""

    def __init__(self, answer):
        self.row = answer["agent"]
        self.id = answer["agent"]["id"]
        self.token = answer["token"]
        self.secret = answer["hmac_secret"]


class Project:
    """One project as seen by one client."""

    def __init__(self, client, row):
        self.client = client
        self.row = row
        self.id = row["id"]
        self.slug = row["slug"]

    @classmethod
    def create(cls, client, slug=None):
        slug = slug or "p-" + uuid.uuid4().hex[:12]
        row = client.post("/projects", {"slug": slug, "name": f"Project {slug}"}, expect=201).json()
        return cls(client, row)

    def through(self, client):
        """The same project through another caller."""
        return Project(client, self.row)

    def path(self, rest=""):
        return f"/projects/{self.slug}{rest}"

    def get(self, rest, expect=200, **params):
        return self.client.get(self.path(rest), expect=expect, **params)

    def post(self, rest, body=None, expect=(200, 201, 202), **more):
        return self.client.post(self.path(rest), body, expect=expect, **more)

    def mint(self, name=None):
        body = {"name": name or "agent-" + uuid.uuid4().hex[:8]}
        return Minted(self.post("/agents", body, expect=201).json())

    def agents(self):
        return self.get("/agents").json()

    def agent(self, agent_id):
        return next(row for row in self.agents() if row["id"] == agent_id)

    def tasks(self, **filters):
        """One page: the items."""
        return self.get("/tasks", **filters).json()["items"]

    def page(self, **filters):
        return self.get("/tasks", **filters).json()

    def walk(self, **filters):
        """Every task of a full walk, in the order of the pages."""
        return self.walk_path("/tasks", **filters)

    def walk_path(self, rest, **filters):
        items, cursor = [], None
        while True:
            page = self.get(rest, cursor=cursor, **filters).json()
            assert set(page) >= {"items", "next_cursor"}
            assert page["items"] or page["next_cursor"] is None, "an empty page with a cursor"
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return items

    def task(self, task_id, engine="celery", expect=200):
        return self.get(f"/tasks/{engine}/{task_id}", expect=expect).json()

    def tree(self, task_id, engine="celery", expect=200):
        return self.get(f"/tasks/{engine}/{task_id}/tree", expect=expect).json()

    def events(self, task_id, engine="celery"):
        return self.walk_path("/events", engine=engine, task_id=task_id)

    def commands(self, **filters):
        return self.walk_path("/commands", **filters)

    def command(self, command_id, expect=200):
        return self.get(f"/commands/{command_id}", expect=expect).json()

    def issue(self, verb, expect=202, **body):
        return self.post(f"/commands/{verb}", body, expect=expect).json()

    def audit(self, **filters):
        return self.walk_path("/audit", **filters)


def text_of(value):
    """A value as the JSON text in which a leaked secret would be found."""
    return json.dumps(value, ensure_ascii=False)
