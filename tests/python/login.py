"""Logs in by psycopg or asyncpg and asks a little. For each user prints who it was, and whether inside TLS; or the SQLSTATE with which it was
refused.

Usage: login.py PORT psycopg|asyncpg USER:PASSWORD[,...] disable|require|verify-full [CA [CERTIFICATE KEY]]
"""

import asyncio
import ssl
import sys

import asyncpg
import psycopg

PORT, DRIVER, LOGINS, MODE = int(sys.argv[1]), *sys.argv[2:5]
CA, CERTIFICATE, KEY = [*sys.argv[5:], None, None, None][:3]
# More than a few records.
LONG = "select repeat('x', 300000)"


def by_psycopg(user, password):
    files = {"sslrootcert": CA, "sslcert": CERTIFICATE, "sslkey": KEY}
    options = {name: path for name, path in files.items() if path}
    with psycopg.connect(
        host="localhost", port=PORT, user=user, password=password, dbname="app", sslmode=MODE, gssencmode="disable", **options
    ) as connection:
        user, number = connection.execute("select current_user, %s::int", [7]).fetchone()
        (long,) = connection.execute(LONG).fetchone()
        return user, number, long, connection.pgconn.ssl_in_use


def context():
    if MODE == "disable":
        return False
    made = ssl.create_default_context(cafile=CA)
    if MODE == "require":
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    if CERTIFICATE:
        made.load_cert_chain(CERTIFICATE, KEY)
    return made


async def by_asyncpg(user, password):
    connection = await asyncpg.connect(host="localhost", port=PORT, user=user, password=password, database="app", ssl=context())
    try:
        user, number = await connection.fetchrow("select current_user, $1::int", 7)
        long = await connection.fetchval(LONG)
        inside = connection._transport.get_extra_info("ssl_object") is not None
        return user, number, long, inside
    finally:
        await connection.close()


def log_in(user, password):
    try:
        found = by_psycopg(user, password) if DRIVER == "psycopg" else asyncio.run(by_asyncpg(user, password))
    except psycopg.OperationalError as error:
        return f"refused {error.sqlstate or str(error).strip().splitlines()[-1]}"
    except asyncpg.PostgresError as error:
        return f"refused {error.sqlstate}"
    current, number, long, inside = found
    assert (number, len(long)) == (7, 300_000), (number, len(long))
    return f"{current} {'tls' if inside else 'clear'}"


for pair in LOGINS.split(","):
    print(log_in(*pair.split(":")))
