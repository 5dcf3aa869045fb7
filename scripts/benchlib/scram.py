"""SCRAM-SHA-256 as a client that has hashed its password before (RFC 5802, RFC 7677): what is left of a login is three short hashes."""

import base64
import hashlib
import hmac
import os
import struct

ITERATIONS = 4096
SALT = b"salt of the bench"


class Password:
    """A password and what PostgreSQL would store of it."""

    def __init__(self, text):
        salted = hashlib.pbkdf2_hmac("sha256", text.encode(), SALT, ITERATIONS)
        self.client_key = hmac.digest(salted, b"Client Key", "sha256")
        self.server_key = hmac.digest(salted, b"Server Key", "sha256")
        self.stored_key = hashlib.sha256(self.client_key).digest()

    def verifier(self):
        salt, stored, server = (base64.b64encode(part).decode() for part in (SALT, self.stored_key, self.server_key))
        return f"SCRAM-SHA-256${ITERATIONS}:{salt}${stored}:{server}"


class Exchange:
    """One login: the body of each of its messages."""

    def __init__(self, password):
        self.password = password
        self.bare = b"n=,r=" + base64.b64encode(os.urandom(18))

    def first(self):
        message = b"n,," + self.bare
        return b"SCRAM-SHA-256\0" + struct.pack("!i", len(message)) + message

    def final(self, challenge):
        nonce = challenge.split(b",")[0]
        last = b"c=biws," + nonce
        signed = b",".join((self.bare, challenge, last))
        signature = hmac.digest(self.password.stored_key, signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(self.password.client_key, signature))
        return last + b",p=" + base64.b64encode(proof)
