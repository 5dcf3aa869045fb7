"""Tables change while asyncpg holds prepared statements. Prints, for every use of one, whether it gave the right rows or which error.

Usage: altered_asyncpg.py PORT kept|evicted. The scenario is that of `tests/tests/unnoticed/altered.rs`, the same in every language.
"""

import asyncio
import sys

import asyncpg

PORT, VARIANT = int(sys.argv[1]), sys.argv[2]
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
    "one": ("select * from changing where value = $1", (2,)),
    "parameter": ("select 'found' as found from changing where id = $1", (2,)),
    "mood": ("select $1::mood as mood", ("good",)),
}
count = 0


async def connect(**options):
    return await asyncpg.connect(host="127.0.0.1", port=PORT, user="app", database="app", ssl=False, **options)


async def fresh(control, sql, arguments):
    """The rows as a statement gives them that nobody has prepared before."""
    global count
    count += 1
    return [tuple(row.items()) for row in await control.fetch(f"{sql} -- {count}", *arguments)]


async def use(control, client, label, sql, arguments):
    expected = await fresh(control, sql, arguments)
    try:
        found = [tuple(row.items()) for row in await client.fetch(sql, *arguments)]
        outcome = "right" if found == expected else f"WRONG {found} for {expected}"
    except asyncpg.PostgresError as error:
        outcome = error.sqlstate
    except Exception as error:  # noqa: BLE001 - what the driver itself says of an answer it did not expect
        outcome = f"WRONG {error!r}"
    print(f"{label}: {outcome}", flush=True)


async def held(clients):
    """Turns in which more and more of the servers are held, so that what is done in them is done on each."""
    for holders in range(SERVERS):
        for client in clients[:holders]:
            await client.execute("begin")
        yield holders
        for client in clients[:holders]:
            await client.execute("commit")


async def main():
    control = await connect(statement_cache_size=0)
    await control.execute(CREATE)
    clients = [await connect() for _ in range(CLIENTS)]
    holders = [await connect() for _ in range(SERVERS)]
    other = await connect()
    for step, sql in STEPS.items():
        await control.execute(sql)
        if VARIANT == "evicted":
            async for _ in held(holders):
                for text in range(FLOOD):
                    await other.fetch(f"select {text}")
        for name, query in QUERIES.items():
            # The last client meets the change in a transaction.
            for turn in range(2):
                await clients[-1].execute("begin")
                await use(control, clients[-1], f"{step}, {name}, transaction {turn}", *query)
                await clients[-1].execute("rollback")
            late = await connect()
            for turn in range(2):
                await use(control, late, f"{step}, {name}, late client, use {turn}", *query)
            await late.close()
            # The comparison needs a server, too.
            async for busy in held(holders[1:]):
                for index, client in enumerate(clients):
                    for turn in range(2):
                        await use(control, client, f"{step}, {name}, client {index}, {busy} busy, use {turn}", *query)


asyncio.run(main())
