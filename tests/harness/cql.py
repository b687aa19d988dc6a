"""One CQL statement, in the native protocol's own bytes: the tests need no more than this, and no driver."""

import socket
import struct

STARTUP, QUERY = 0x01, 0x07
READY, RESULT = 0x02, 0x08
ONE = 0x0001


def execute(contact, statement, timeout=60.0):
    """Runs a statement on the node at `host:port`; an answer other than a result is an error."""
    host, port = contact.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=timeout) as node:
        ask(node, STARTUP, struct.pack(">H", 1) + string("CQL_VERSION") + string("3.0.0"), READY)
        text = statement.encode()
        ask(node, QUERY, struct.pack(">I", len(text)) + text + struct.pack(">HB", ONE, 0), RESULT)


def string(text):
    return struct.pack(">H", len(text)) + text.encode()


def ask(node, opcode, body, wanted):
    """Sends a frame of version 4 and reads the answer to it."""
    node.sendall(struct.pack(">BBhBI", 4, 0, 0, opcode, len(body)) + body)
    _, _, _, answer, length = struct.unpack(">BBhBI", read(node, 9))
    body = read(node, length)
    assert answer == wanted, f"answer {answer}: {body!r}"


def read(node, count):
    data = b""
    while len(data) < count:
        more = node.recv(count - len(data))
        assert more, "the node hung up"
        data += more
    return data
