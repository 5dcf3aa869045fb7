"""Tables change while psycopg holds prepared statements. Prints, for every use of one, whether it gave the right rows or which error.

Usage: altered_psycopg.py PORT kept|evicted. The scenario is that of `tests/tests/unnoticed/altered.rs`, the same in every language.
"""

import sys

import psycopg

PORT, VARIANT = sys.argv[1:3]
URL = f"host=127.0.0.1 port={PORT} user=app dbname=app sslmode=disable"
CLIENTS = 4
SERVERS = 3
# More than a server keeps.
FLOOD = 25

CREATE = """
drop table if exists changing; drop type if exists mood;
create table changing (id int, value int, note text); insert into changing select n, n, 'note ' || n from generate_series(1, 3) n;
create type mood as enum ('good', 'bad');
"""
STEPS = {
    "nothing": "select",
    "a column more": "alter table changing add extra int default 7",
    "other types": "alter table changing alter value type real, alter id type bigint",
    "a column less": "alter table changing drop note",
    "another table": "drop table changing; create table changing (value int, id int); insert into changing values (2, 7)",
    "the type anew": "drop type mood; create type mood as enum ('bad', 'good')",
}
QUERIES = {
    "all": ("select * from changing order by id", ()),
    "one": ("select * from changing where value = %b", (2,)),
    "parameter": ("select 'found' as found from changing where id = %b", (2,)),
    "mood": ("select %t::mood as mood", ("good",)),
}
count = 0


def connect(threshold):
    return psycopg.connect(URL, autocommit=True, prepare_threshold=threshold)


def rows(connection, sql, arguments):
    cursor = connection.cursor(row_factory=psycopg.rows.dict_row, binary=True)
    return cursor.execute(sql, arguments).fetchall()


def use(control, client, label, sql, arguments):
    # The rows as a statement gives them that nobody has prepared before.
    expected = rows(control, sql, arguments)
    try:
        found = rows(client, sql, arguments)
        outcome = "right" if found == expected else f"WRONG {found} for {expected}"
    except psycopg.Error as error:
        outcome = error.sqlstate or f"WRONG {error!r}"
    print(f"{label}: {outcome}", flush=True)


def held(clients):
    """Turns in which more and more of the servers are held, so that what is done in them is done on each."""
    for holders in range(SERVERS):
        for client in clients[:holders]:
            client.execute("begin")
        yield holders
        for client in clients[:holders]:
            client.execute("commit")


control = connect(None)
psycopg.ClientCursor(control).execute(CREATE)
clients = [connect(0) for _ in range(CLIENTS)]
holders = [connect(None) for _ in range(SERVERS)]
other = connect(0)
for step, sql in STEPS.items():
    psycopg.ClientCursor(control).execute(sql)
    if VARIANT == "evicted":
        for _ in held(holders):
            for text in range(FLOOD):
                other.execute(f"select {text}")
    for name, query in QUERIES.items():
        # The last client meets the change in a transaction.
        for turn in range(2):
            clients[-1].execute("begin")
            use(control, clients[-1], f"{step}, {name}, transaction {turn}", *query)
            clients[-1].execute("rollback")
        with connect(0) as late:
            for turn in range(2):
                use(control, late, f"{step}, {name}, late client, use {turn}", *query)
        # The comparison needs a server, too.
        for busy in held(holders[1:]):
            for index, client in enumerate(clients):
                for turn in range(2):
                    use(control, client, f"{step}, {name}, client {index}, {busy} busy, use {turn}", *query)
