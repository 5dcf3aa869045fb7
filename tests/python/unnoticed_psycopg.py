"""What psycopg sees of the connection's own state: what it asked for at startup, errors that end it, cancelling. Prints what it saw.

Usage: unnoticed_psycopg.py PORT startup|reset|terminated|pid|queued
"""

import sys
import threading

import psycopg

PORT, SCENARIO = sys.argv[1:3]
URL = f"host=127.0.0.1 port={PORT} user=app dbname=app sslmode=disable"
NAMES = ("search_path", "statement_timeout", "extra_float_digits", "application_name", "client_encoding", "TimeZone", "work_mem")


def connect(**options):
    return psycopg.connect(URL, autocommit=True, **options)


def value(connection, sql, *parameters):
    return connection.execute(sql, parameters).fetchone()[0]


def state_of(action, *arguments):
    try:
        action(*arguments)
        return "no error"
    except psycopg.Error as error:
        return error.sqlstate


def shown(connection):
    return {name: value(connection, f"show {name}") for name in NAMES}


def startup():
    """Connections that ask for different things take turns."""
    connections = [
        connect(),
        connect(options="-c search_path=pg_catalog,public -c statement_timeout=100ms", application_name="asks for much"),
        connect(options="--extra_float_digits=0 -c TimeZone=Asia/Tokyo", client_encoding="latin1"),
        connect(options="-c work_mem=5MB -c search_path=\"with\\ blank\""),
    ]
    for _ in range(2):
        for index, connection in enumerate(connections):
            print(index, shown(connection), state_of(connection.execute, "select pg_sleep(0.25)"))


def reset():
    connection = connect(options="-c search_path=pg_catalog -c statement_timeout=12345", application_name="mine")
    for text in ("select", "reset search_path", "reset all", "discard all"):
        connection.execute("set search_path to public")
        connection.execute("set statement_timeout to 777")
        connection.execute("set application_name to 'changed'")
        connection.execute(text)
        print(text, shown(connection), connection.info.parameter_status("application_name"))


def terminated():
    connection, other = connect(), connect()
    text = "select pg_sleep(60) /* terminated */"

    def end():
        seen = "select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep' and query = %s"
        while other.execute(seen, (text,)).fetchone() is None:
            pass

    ender = threading.Thread(target=end)
    ender.start()
    print(state_of(connection.execute, text), connection.closed)
    ender.join()


def pid():
    connection = connect()
    own = value(connection, "select pg_backend_pid()")
    print(connection.info.backend_pid == own)
    other = connect()
    print(value(other, "select pg_terminate_backend(%s)", connection.info.backend_pid))
    print(state_of(connection.execute, "select 1"))


def queued():
    """A query that waits for a server is cancelled, and its connection is as good as ever."""
    holder, connection = connect(), connect()
    holder.execute("begin")
    ended = []
    waiting = threading.Thread(target=lambda: ended.append(state_of(connection.execute, "select 1")))
    waiting.start()
    while waiting.is_alive():
        # The request may come before the query.
        connection.cancel_safe()
        waiting.join(0.05)
    print(*ended)
    holder.execute("commit")
    print(value(connection, "select 'goes on'"))


globals()[SCENARIO]()
