"""Bad input of any kind gets a 4xx in the envelope; the server stays up and stores nothing."""

import http.client
import json
import socket
import time
import uuid

import httpx
import pytest

from harness.client import API, Client, check_common

DEEP = "[" * 100_000 + "]" * 100_000
BODIES = {
    "nothing": b"",
    "blank": b"   ",
    "not JSON": b"hello",
    "cut": b'{"name": "x"',
    "null": b"null",
    "a list": b"[]",
    "a number": b"1",
    "text": b'"x"',
    "not UTF-8": b'{"name": "\xff\xfe"}',
    "UTF-16": '{"name": "x"}'.encode("utf-16"),
    "a lone surrogate": b'{"name": "\\ud800"}',
    "NUL": b'{"name": "a\x00b"}',
    "an escaped NUL": b'{"name": "a\\u0000b", "slug": "a\\u0000b"}',
    "deep": b'{"name": ' + DEEP.encode() + b"}",
    "deep objects": b'{"a":' * 50_000,
    "a huge number": b'{"name": ' + b"9" * 100_000 + b"}",
    "infinity": b'{"name": 1e999}',
    "NaN": b'{"name": NaN}',
    "a comment": b'{"name": "x" /* y */}',
    "a trailing comma": b'{"name": "x",}',
    "two documents": b'{"name": "x"}{"name": "y"}',
    "a BOM": b'\xef\xbb\xbf{"name": "x"}',
    "duplicate members": b'{"name": "x", "name": 5}',
    "unknown members": b'{"name": "x", "surprise": true}',
    "a name that is a list": b'{"name": ["x"]}',
    "an empty name": b'{"name": ""}',
    "a long name": b'{"name": "' + b"n" * 10_000 + b'"}',
}
ROUTES = [
    ("POST", "/auth/login"),
    ("POST", "/projects"),
    ("POST", "/projects/{slug}/agents"),
    ("POST", "/api-keys"),
    ("POST", "/projects/{slug}/commands/retry-task"),
    ("POST", "/projects/{slug}/commands/cancel-task"),
]


@pytest.mark.parametrize("method, path", ROUTES, ids=[path for _, path in ROUTES])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_bad_body_is_a_4xx_and_changes_nothing(server, admin, project, method, path, body):
    if path == "/auth/login":
        client = Client(server.url)
    else:
        client = admin
    agents, keys = len(project.agents()), len(listed(admin, "/api-keys"))
    projects = len(listed(admin, "/projects"))
    answer = client.request(
        method, path.format(slug=project.slug), expect=None, content=body, headers={"content-type": "application/json"}
    )
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.status_code in (400, 413, 422, 429), answer.text
    assert len(project.agents()) == agents and len(listed(admin, "/api-keys")) == keys
    assert len(listed(admin, "/projects")) == projects


def listed(client, path):
    body = client.get(path).json()
    return body["items"] if isinstance(body, dict) else body


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml", "", "nonsense"])
def test_another_content_type_is_refused(admin, project, kind):
    answer = admin.request(
        "POST", project.path("/agents"), expect=None, content=b'{"name": "x"}', headers={"content-type": kind}
    )
    assert answer.status_code in (400, 415, 422), answer.text
    assert project.agents() == []


def test_a_body_above_one_mebibyte_is_refused_with_413(admin, project):
    body = json.dumps({"name": "x" * (1 << 20)}).encode()
    answer = admin.request("POST", project.path("/agents"), expect=413, content=body, headers={"content-type": "application/json"})
    assert answer.json()["error"] == "payload_too_large"


def test_a_refusal_before_the_body_has_come_leaves_the_connection_open(server, admin, project):
    """A client that reads the answer sends its next request on the same connection."""
    link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in admin.http.cookies.jar)
    body = b'{"name": "x"}'
    for query in ["wait=31", "wait=soon"]:
        link.putrequest("POST", API + project.path("/commands/retry-task?" + query))
        for name, value in [("cookie", cookies), ("x-csrf-token", admin.csrf), ("content-type", "application/json")]:
            link.putheader(name, value)
        link.putheader("content-length", str(len(body)))
        link.endheaders()
        time.sleep(0.3)
        link.send(body)
        answer = link.getresponse()
        assert (answer.status, json.loads(answer.read())["detail"][0]["loc"]) == (422, ["query", "wait"])
        socket_before = link.sock
        link.request("GET", "/health")
        answer = link.getresponse()
        assert answer.status == 200 and answer.read() and link.sock is socket_before
    link.close()


def test_a_body_that_grows_beyond_the_cap_while_it_streams_is_refused(admin, project):
    def endless():
        for _ in range(64):
            yield b" " * 65_536

    try:
        answer = admin.request("POST", project.path("/agents"), expect=None, content=endless(), headers={"content-type": "application/json"})
        assert answer.status_code == 413
    except httpx.WriteError:
        pass  # the server closed before it had read everything: as good
    assert project.agents() == []


@pytest.mark.parametrize(
    "path",
    [
        "/nope", "/projects/{slug}/nope", "/projects/{slug}/tasks/a/b/c/d", "/projects//tasks", "/projects/%00/tasks",
        "/projects/..%2f..%2fetc/tasks", "/projects/{slug}/tasks/%ff/x", "/projects/UPPER/tasks", "/projects/a/tasks",
        "/projects/" + "a" * 300 + "/tasks", "/projects/{slug}/agents/not-a-uuid/workers", "/projects/é/tasks",
        "/projects/{slug}/commands/%2e%2e", "/" + "x" * 8000,
    ],
)  # fmt: skip
def test_a_path_that_leads_nowhere_is_a_json_4xx(admin, project, path):
    answer = admin.request("GET", path.format(slug=project.slug), expect=None)
    assert answer.status_code in (400, 404, 414, 422), answer.text


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"])
def test_a_method_that_is_not_served_is_a_405(admin, project, method):
    answer = admin.request(method, project.path("/tasks"), expect=405)
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.headers["allow"] == "GET, HEAD"
    assert admin.request(method, project.path("/commands/retry-task"), expect=405).headers["allow"] == "POST"


def test_head_is_answered_as_get_without_its_body(admin, project):
    for path in ("/tasks", "/commands", "/agents", "/stats", "/audit", "/nope", "/commands/x"):
        get = admin.request("GET", project.path(path), expect=None)
        head = admin.http.head(API + project.path(path))
        assert head.content == b"" and head.status_code == get.status_code, path
        assert head.headers["content-type"] == get.headers["content-type"], path


@pytest.mark.parametrize(
    "query",
    [
        "limit=1&limit=2", "limit=%31", "cursor=%ff%fe", "since=%00", "name=%00", "search=" + "x" * 5000, "name=" + "n" * 201,
        "queue=" + "q" * 201, "worker=" + "w" * 201, "fields=" + "a," * 300, "include_total=maybe", "state=failed&state=started",
        "&&&", "=", "limit", "a=b&" * 500,
    ],
)  # fmt: skip
def test_an_odd_query_never_breaks_the_list(admin, project, query):
    answer = admin.request("GET", project.path("/tasks") + "?" + query, expect=None)
    assert answer.status_code in (200, 400, 414, 422), answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer"}, {"authorization": "Bearer z4k_"}, {"authorization": "Bearer z4k_" + "x" * 10_000},
        {"authorization": "Basic YTpi"}, {"authorization": ""}, {"cookie": "z4j_session=nonsense"},
        {"cookie": "z4j_session=" + "x" * 5000}, {"cookie": ";;;=;"}, {"cookie": "z4j_session=\"a;b"},
        {"x-csrf-token": "x"},
    ],
    ids=lambda headers: str(headers)[:40],
)  # fmt: skip
def test_bad_credentials_are_a_401(server, project, headers):
    with Client(server.url) as nobody:
        answer = nobody.request("GET", project.path("/tasks"), expect=None, headers=headers)
        assert answer.status_code in (401, 431), answer.text


def raw(server, data):
    """Sends bytes that no HTTP library would, and returns what comes back."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as link:
        got = b""
        try:
            link.sendall(data)
            link.shutdown(socket.SHUT_WR)
            while chunk := link.recv(65_536):
                got += chunk
        except OSError:
            pass  # refused before it had read everything: as good
        return got


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02\x03", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /health HTTP/1.1\r\n\r\n",
        b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nx",
        b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X-A: " + b"y" * 1_000_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(2000)) + b"\r\n",
        b"GET /ws/agent HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=range(10),
)  # fmt: skip
def test_bytes_that_are_no_http_do_no_harm(server, data):
    got = raw(server, data)
    assert b"panicked" not in got and b"<html" not in got.lower()
    assert httpx.get(server.url + "/health").status_code == 200


def test_a_plain_get_of_the_agent_socket_is_a_4xx(server):
    answer = httpx.get(server.url + "/ws/agent")
    check_common(answer)
    assert 400 <= answer.status_code < 500


def test_the_log_shows_no_panic(server, project):
    project.tasks()
    assert "panicked" not in server.log()


def test_every_answer_names_its_request(server, admin):
    ids = {admin.get("/auth/me").headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5
    odd = admin.request("GET", "/nope/" + uuid.uuid4().hex, expect=404, headers={"x-request-id": "chosen-by-client"})
    assert odd.json()["request_id"] == odd.headers["x-request-id"]
