"""Mixed work through psycopg: prepared and not, pipelines, COPY, errors, transactions, cancel. Prints `done`."""

import sys
import threading

import psycopg

PORT = sys.argv[1]
URL = f"host=127.0.0.1 port={PORT} user=app dbname=app sslmode=disable application_name=psycopg"


def work(number):
    with psycopg.connect(URL, autocommit=True, prepare_threshold=2) as connection:
        for round in range(30):
            row = connection.execute("select %s::int + %s::int, %s::text", (number, round, "ü" * round)).fetchone()
            assert row == (number + round, "ü" * round), row
            with connection.transaction():
                connection.execute("create temp table t (x int, y text) on commit drop")
                with connection.cursor().copy("copy t from stdin") as copy:
                    for value in range(20):
                        copy.write_row((value, f"row {value}"))
                assert connection.execute("select count(*), sum(x) from t").fetchone() == (20, 190)
                with connection.cursor().copy("copy (select * from t order by x) to stdout") as copy:
                    assert sum(1 for _ in copy.rows()) == 20
            try:
                connection.execute("select 1/0")
                raise AssertionError("no error")
            except psycopg.errors.DivisionByZero:
                pass
            with connection.pipeline():
                cursors = [connection.execute("select %s::int * 2", (value,)) for value in range(10)]
            assert [cursor.fetchone()[0] for cursor in cursors] == [value * 2 for value in range(10)]
            try:
                with connection.pipeline():
                    connection.execute("select %s::int", (1,))
                    connection.execute("select 1/%s::int", (0,))
                    connection.execute("select %s::int", (2,))
                raise AssertionError("no error")
            except psycopg.errors.DivisionByZero:
                pass
            with connection.cursor(binary=True) as cursor:
                cursor.execute("select %b::bytea, now()", (bytes(range(256)),))
                assert cursor.fetchone()[0] == bytes(range(256))


def cancel():
    with psycopg.connect(URL, autocommit=True) as connection:
        timer = threading.Timer(0.3, connection.cancel)
        timer.start()
        try:
            connection.execute("select pg_sleep(60)")
            raise AssertionError("not cancelled")
        except psycopg.errors.QueryCanceled:
            pass
        timer.join()
        assert connection.execute("select 1").fetchone() == (1,)


failures = []


def guarded(function, *arguments):
    try:
        function(*arguments)
    except BaseException as error:  # noqa: BLE001 - reported below, by the main thread
        failures.append(repr(error))


# Alone: what waits in a queue for a server is another subject than what runs.
guarded(cancel)
threads = [threading.Thread(target=guarded, args=(work, number)) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
if failures:
    sys.exit("\n".join(failures))
print("done")
