"""Mixed work through psycopg from many connections at once. Prints the totals that the tables hold at the end.

Usage: mixed_psycopg.py PORT prepared|unprepared. It knows no pooler: run against PostgreSQL itself it must print the same.
"""

import logging
import sys
import threading
from contextlib import contextmanager

import psycopg
from psycopg import errors

PORT, VARIANT = sys.argv[1:3]
URL = f"host=127.0.0.1 port={PORT} user=app dbname=app sslmode=disable application_name=psycopg"
CONNECTIONS = 50
ROUNDS = 3
# More than the pooler keeps on a server, so that statements are evicted while others use them.
TEXTS = 60

TABLES = """
drop table if exists item, counter;
create table item (owner int, number int, note text, tags int[], data bytea, amount bigint, primary key (owner, number));
create table counter (id int primary key, value bigint not null);
insert into counter select id, 0 from generate_series(0, 9) id;
"""
INSERT = "insert into item values (%s, %s, %s, %s, %s, %s) returning amount"
TOTALS = """
select (select count(*) from item), (select sum(amount) from item), (select sum(octet_length(data)) from item),
       (select sum(value) from counter)
"""


def connect(number):
    if VARIANT == "prepared":
        return psycopg.connect(URL, autocommit=True, prepare_threshold=(0, 5)[number % 2])
    factory = (psycopg.Cursor, psycopg.ClientCursor)[number % 2]
    return psycopg.connect(URL, autocommit=True, prepare_threshold=None, cursor_factory=factory)


@contextmanager
def fails(kind):
    try:
        yield
    except kind:
        return
    raise AssertionError(f"no {kind.__name__}")


def one(connection, sql, parameters=()):
    return connection.execute(sql, parameters).fetchone()


def select(connection, number, round):
    for turn in range(5):
        row = one(connection, "select %s::int + %s::int, %s::text", (number, turn, "ü" * round))
        assert row == (number + turn, "ü" * round), row
    for turn in range(12):
        text = (number * 7 + round * 12 + turn) % TEXTS
        assert one(connection, f"select %s::int * {text}, '{text}'", (number,)) == (number * text, str(text))
    array, data = [number, None, round], bytes(range(256)) * round
    row = one(connection, "select %s::int[], %s::bytea, %s::text, %s::float8", (array, data, None, 0.1))
    assert row == (array, data, None, 0.1), row


def write(connection, number, round):
    with connection.transaction():
        backend = one(connection, "select pg_backend_pid(), pg_current_xact_id()::text")
        key = round * 100
        assert one(connection, INSERT, (number, key, "written", [number], b"\0\xff", 1)) == (1,)
        row = one(connection, "update item set amount = amount + %s where owner = %s and number = %s returning amount", (number, number, key))
        assert row == (1 + number,), row
        assert one(connection, "select pg_backend_pid(), pg_current_xact_id()::text") == backend
    assert one(connection, "select note, tags, data from item where owner = %s and number = %s", (number, key)) == ("written", [number], b"\0\xff")
    changed = connection.execute("update counter set value = value + 1 where id = %s", (number % 10,))
    assert changed.rowcount == 1
    connection.autocommit = False
    connection.execute(INSERT, (number, key + 1, None, None, None, 1000))
    connection.rollback()
    assert one(connection, "select count(*) from item where owner = %s and number = %s", (number, key + 1)) == (0,)
    connection.commit()
    connection.autocommit = True


def err(connection, number, round):
    key = round * 100
    for sql, parameters, kind in [
        ("select 1 / %s::int", (0,), errors.DivisionByZero),
        ("selec %s::int", (1,), errors.SyntaxError),
        ("select %s::int from nowhere", (1,), errors.UndefinedTable),
        (INSERT, (number, key, None, None, None, 0), errors.UniqueViolation),
    ]:
        with fails(kind):
            connection.execute(sql, parameters)
        assert one(connection, "select %s::int", (number,)) == (number,)
        with fails(kind), connection.transaction():
            connection.execute(INSERT, (number, key + 2, None, None, None, 5000))
            try:
                connection.execute(sql, parameters)
            finally:
                with fails(errors.InFailedSqlTransaction):
                    connection.execute("select %s::int", (number,))
        assert one(connection, "select count(*) from item where owner = %s and number = %s", (number, key + 2)) == (0,)


def save(connection, number, round):
    key = round * 100
    with connection.transaction():
        connection.execute(INSERT, (number, key + 3, None, None, None, 1))
        with fails(errors.UniqueViolation), connection.transaction():
            connection.execute(INSERT, (number, key + 4, None, None, None, 1000))
            connection.execute(INSERT, (number, key + 3, None, None, None, 1000))
        connection.execute(INSERT, (number, key + 5, None, None, None, 1))
    assert one(connection, "select count(*) from item where owner = %s and number between %s and %s", (number, key + 3, key + 5)) == (2,)


def copy(connection, number, round):
    key = round * 100
    with connection.cursor().copy("copy item (owner, number, amount) from stdin") as stream:
        for value in range(20):
            stream.write_row((number, key + 10 + value, 2))
    with connection.cursor().copy(f"copy (select number from item where owner = {number} and number between {key + 10} and {key + 39} order by 1) to stdout") as stream:
        assert [int(row[0]) for row in stream.rows()] == list(range(key + 10, key + 30))
    with fails(errors.UniqueViolation), connection.cursor().copy("copy item (owner, number) from stdin") as stream:
        stream.write_row((number, key + 10))
    with fails(errors.InvalidTextRepresentation), connection.cursor().copy("copy item (owner) from stdin") as stream:
        stream.write("no number\n")
    with fails(errors.QueryCanceled), connection.cursor().copy("copy item (owner, number) from stdin") as stream:
        stream.write("1\t0\n")
        raise errors.QueryCanceled("thought better of it")
    with connection.transaction():
        with connection.cursor(name="walk") as cursor:
            cursor.execute("select value from generate_series(%s::int, %s::int) value", (number, number + 99))
            cursor.itersize = 7
            assert [row[0] for row in cursor] == list(range(number, number + 100))


def batch(connection, number, round):
    key = round * 100
    rows = [(number, key + 40 + value, f"batch {value}", [], None, 3) for value in range(10)]
    with connection.transaction():
        connection.cursor().executemany(INSERT, rows)
    with fails(errors.UniqueViolation), connection.transaction():
        connection.cursor().executemany(INSERT, [(number, key + 60, None, None, None, 1000), *rows])
    if isinstance(connection.cursor(), psycopg.ClientCursor):
        return  # It speaks the simple protocol, which has no pipelines.
    with connection.pipeline():
        cursors = [connection.execute("select %s::int * 2", (value,)) for value in range(10)]
    assert [cursor.fetchone()[0] for cursor in cursors] == [value * 2 for value in range(10)]
    with fails(errors.DivisionByZero), connection.pipeline():
        connection.execute(INSERT, (number, key + 61, None, None, None, 1000))
        connection.execute("select 1 / %s::int", (0,))
        connection.execute("select %s::int", (2,))
    assert one(connection, "select count(*) from item where owner = %s and number = %s", (number, key + 61)) == (0,)


def large(connection, number):
    rows = connection.execute("select value, repeat(%s::text, 100) from generate_series(1, 30000) value", (str(number % 10),))
    assert all(row == (index, str(number % 10) * 100) for index, row in enumerate(rows, 1))


def cancel(connection, number):
    """Cancels a statement that another connection sees running."""
    text = f"select pg_sleep(60) /* of {number} */"

    def watch():
        with psycopg.connect(URL, autocommit=True) as other:
            seen = "select count(*) from pg_stat_activity where state = 'active' and query = %s"
            while one(other, seen, (text,)) != (1,):
                pass
        connection.cancel_safe()

    watcher = threading.Thread(target=watch)
    watcher.start()
    with fails(errors.QueryCanceled):
        connection.execute(text)
    watcher.join()
    assert one(connection, "select %s::int", (number,)) == (number,)


def work(number):
    with connect(number) as connection:
        everyone.wait(60)
        for round in range(1, ROUNDS + 1):
            for step in (select, write, err, save, copy, batch):
                step(connection, number, round)
        if number % 10 == 0:
            large(connection, number)
        if number % 25 == 0:
            cancel(connection, number)


failures = []
everyone = threading.Barrier(CONNECTIONS)
# What the driver ignores while an expected error unwinds.
logging.getLogger("psycopg").setLevel(logging.ERROR)


def guarded(number):
    try:
        work(number)
    except BaseException as error:  # noqa: BLE001 - reported below, by the main thread
        failures.append(f"connection {number}: {error!r}")
        raise


with connect(0) as first:
    first.execute(TABLES, prepare=False) if VARIANT == "unprepared" else psycopg.ClientCursor(first).execute(TABLES)
    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        sys.exit("\n".join(failures))
    print(*one(first, TOTALS))
