"""As much of a PostgreSQL client as it takes to log in under trust and sit there."""

import socket
import struct


class Refused(Exception):
    """The server's ErrorResponse, or a connection that it closed."""


def startup_packet(user, database):
    body = b"".join(part.encode() + b"\0" for part in ("user", user, "database", database)) + b"\0"
    return struct.pack("!ii", len(body) + 8, 196608) + body


def log_in(port, user="postgres", database="bench", timeout=10):
    """A socket that has read ReadyForQuery."""
    client = socket.create_connection(("127.0.0.1", port), timeout=timeout)
    try:
        client.sendall(startup_packet(user, database))
        received = b""
        while True:
            chunk = client.recv(4096)
            if not chunk:
                raise Refused("closed the connection")
            received += chunk
            while len(received) >= 5:
                length = struct.unpack("!i", received[1:5])[0] + 1
                if len(received) < length:
                    break
                kind, body, received = received[:1], received[5:length], received[length:]
                if kind == b"E":
                    raise Refused(body.replace(b"\0", b" ").decode(errors="replace"))
                if kind == b"Z":
                    return client
    except BaseException:
        client.close()
        raise
