"""The simulator itself: it must agree with the golden vectors before it may judge the server."""

import json
from pathlib import Path

import pytest

from harness.agent import Agent
from harness.canonical import canonical, purge_token, secret_bytes, signature

DOMAIN = Path(__file__).resolve().parent.parent / "domain"


def fixture(name):
    found = sorted(DOMAIN.rglob(name))
    if not found:
        pytest.skip(f"no {name} below {DOMAIN}")
    return found[0]


def test_the_simulator_agrees_with_every_golden_frame():
    vectors = json.loads(fixture("vectors.json").read_text())
    for vector in vectors["frames"]:
        frame = json.loads(vector["wire_frame_text"])
        ids = {name: vector[name] for name in ("agent_id", "project_id", "session_id")}
        signed = {name: value for name, value in frame.items() if name != "hmac"} | ids
        assert canonical(signed).decode() == vector["canonical_utf8"], vector["name"]
        assert signature(bytes.fromhex(vector["secret_hex"]), frame, **ids) == vector["hmac_hex"], vector["name"]
    derivation = vectors["project_secret_derivation"]
    assert secret_bytes(derivation["z4j_hmac_secret"]).hex() == derivation["secret_hex"]
    for vector in vectors["purge_confirm_token"]:
        assert purge_token(bytes.fromhex(vector["secret_hex"]), vector["queue"], vector["depth"]) == vector["token_hex"]


def test_the_simulator_verifies_frames_captured_from_real_agents():
    checked = 0
    for path in fixture("event_batch.jsonl").parent.glob("*.jsonl"):
        for line in path.read_text().split("\n"):
            if not line:
                continue
            captured = json.loads(line)
            if not captured.get("hmac_verified"):
                continue
            session, frame = captured["session"], json.loads(captured["raw"])
            expected = signature(
                secret_bytes(session["secret_b64url"]), frame,
                session["agent_id"], session["project_id"], session["session_id"],
            )  # fmt: skip
            assert frame["hmac"] == expected, path.name
            checked += 1
    assert checked > 100


def test_a_sealed_frame_is_signed_as_it_stands_on_the_wire():
    class Minted:
        token, secret, id = "t", "c" * 43, "i"

    agent = Agent("http://127.0.0.1:1", Minted)
    agent.ack = {"agent_id": "a", "project_id": "p", "session_id": "s"}
    frame = json.loads(agent.seal("heartbeat", {"number": 1e16}))
    assert frame["seq"] == 1 and frame["hmac"] == signature(agent.secret, frame, "a", "p", "s")
    assert json.loads(agent.seal("heartbeat", {}, sign_seq=...)).get("seq") is None
