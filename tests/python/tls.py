"""Everything that moves many bytes, through psycopg: a large result, COPY both ways, a pipeline, a cancelled query.

Usage: tls.py PORT CONNINFO (the port stands there too)
"""

import sys
import threading

import psycopg

LARGE = 2_000_000

with psycopg.connect(sys.argv[2], autocommit=True) as connection:
    assert connection.pgconn.ssl_in_use
    assert connection.execute("select repeat('x', %s)", (LARGE,)).fetchone()[0] == "x" * LARGE
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("create temp table copied (n int, t text) on commit drop")
        with cursor.copy("copy copied from stdin") as copy:
            for n in range(20_000):
                copy.write_row((n, "y" * 100))
        with cursor.copy("copy copied to stdout") as copy:
            assert sum(len(data) for data in copy) > 2_000_000
        assert cursor.execute("select count(*), sum(length(t)) from copied").fetchone() == (20_000, 2_000_000)
    with connection.pipeline():
        answers = [connection.execute("select %s::int", (n,)) for n in range(500)]
    assert [answer.fetchone()[0] for answer in answers] == list(range(500))
    done = threading.Event()

    # A request that comes before the query runs does nothing.
    def cancel():
        while not done.wait(0.2):
            connection.cancel_safe(timeout=30)

    canceller = threading.Thread(target=cancel)
    canceller.start()
    try:
        connection.execute("select pg_sleep(60)")
        raise AssertionError("not cancelled")
    except psycopg.errors.QueryCanceled:
        pass
    done.set()
    canceller.join()
    assert connection.execute("select 1").fetchone() == (1,)
