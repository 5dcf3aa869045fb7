"""As much of a PostgreSQL client as it takes to log in under trust and sit there."""

import socket
import ssl
import struct


class Refused(Exception):
    """The server's ErrorResponse, or a connection that it closed."""


def messages(client):
    """Type and body of each message that comes, up to where the caller has enough."""
    received = b""
    while True:
        while len(received) >= 5 and len(received) > struct.unpack("!i", received[1:5])[0]:
            length = struct.unpack("!i", received[1:5])[0] + 1
            yield received[:1], received[5:length]
            received = received[length:]
        chunk = client.recv(4096)
        if not chunk:
            raise Refused("closed the connection")
        received += chunk


def startup_packet(user, database):
    body = b"".join(part.encode() + b"\0" for part in ("user", user, "database", database)) + b"\0"
    return struct.pack("!ii", len(body) + 8, 196608) + body


def log_in(port, user="postgres", database="bench", timeout=10, tls=False):
    """A socket that has read ReadyForQuery."""
    client = socket.create_connection(("127.0.0.1", port), timeout=timeout)
    try:
        if tls:
            client = encrypted(client)
        client.sendall(startup_packet(user, database))
        for kind, body in messages(client):
            if kind == b"E":
                raise Refused(body.replace(b"\0", b" ").decode(errors="replace"))
            if kind == b"Z":
                return client
    except BaseException:
        client.close()
        raise


def encrypted(client):
    """The socket inside TLS, whoever is at the other end."""
    client.sendall(struct.pack("!ii", 8, 80877103))
    if client.recv(1) != b"S":
        raise Refused("takes no TLS")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(client)


def query(sql):
    text = sql.encode() + b"\0"
    return b"Q" + struct.pack("!i", len(text) + 4) + text


def ask(client, sql):
    """The first column of the rows that a simple query gives, as text."""
    client.sendall(query(sql))
    rows = []
    for kind, body in messages(client):
        if kind == b"E":
            raise Refused(body.replace(b"\0", b" ").decode(errors="replace"))
        if kind == b"D":
            length = struct.unpack("!i", body[2:6])[0]
            rows.append(body[6:6 + max(length, 0)].decode())
        if kind == b"Z":
            return rows
