"""Mixed work through asyncpg, with its statement cache as it is by default, from many connections at once. Prints the totals that the
tables hold at the end.

Usage: mixed_asyncpg.py PORT. It knows no pooler: run against PostgreSQL itself it must print the same.
"""

import asyncio
import io
import sys
from contextlib import contextmanager

import asyncpg

PORT = int(sys.argv[1])
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
INSERT = "insert into item values ($1, $2, $3, $4, $5, $6) returning amount"
COUNT = "select count(*) from item where owner = $1 and number = $2"
TOTALS = """
select (select count(*) from item), (select sum(amount) from item), (select sum(octet_length(data)) from item),
       (select sum(value) from counter)
"""


async def connect():
    return await asyncpg.connect(host="127.0.0.1", port=PORT, user="app", database="app", ssl=False)


@contextmanager
def fails(kind):
    try:
        yield
    except kind:
        return
    raise AssertionError(f"no {kind.__name__}")


async def select(connection, number, round):
    for turn in range(5):
        row = await connection.fetchrow("select $1::int + $2::int, $3::text", number, turn, "ü" * round)
        assert row == (number + turn, "ü" * round), row
    for turn in range(12):
        text = (number * 7 + round * 12 + turn) % TEXTS
        assert await connection.fetchrow(f"select $1::int * {text}, '{text}'", number) == (number * text, str(text))
    values = ([number, None, round], bytes(range(256)) * round, None, 0.1)
    assert await connection.fetchrow("select $1::int[], $2::bytea, $3::text, $4::float8", *values) == values
    statement = await connection.prepare("select generate_series(1, $1::int)")
    assert len(await statement.fetch(number)) == number
    assert await connection.fetch("select row(1, $1::text)", "x") == [((1, "x"),)]


async def write(connection, number, round):
    key = round * 100
    own = "select pg_backend_pid(), pg_current_xact_id()::text"
    async with connection.transaction():
        backend = await connection.fetchrow(own)
        assert await connection.fetchval(INSERT, number, key, "written", [number], b"\0\xff", 1) == 1
        update = "update item set amount = amount + $1 where owner = $2 and number = $3 returning amount"
        assert await connection.fetchval(update, number, number, key) == 1 + number
        assert await connection.fetchrow(own) == backend
    row = await connection.fetchrow("select note, tags, data from item where owner = $1 and number = $2", number, key)
    assert row == ("written", [number], b"\0\xff"), row
    assert await connection.execute("update counter set value = value + 1 where id = $1", number % 10) == "UPDATE 1"
    transaction = connection.transaction(isolation="serializable")
    await transaction.start()
    await connection.execute(INSERT, number, key + 1, None, None, None, 1000)
    await transaction.rollback()
    assert await connection.fetchval(COUNT, number, key + 1) == 0


async def err(connection, number, round):
    key = round * 100
    for sql, arguments, kind in [
        ("select 1 / $1::int", (0,), asyncpg.DivisionByZeroError),
        ("selec $1::int", (1,), asyncpg.PostgresSyntaxError),
        ("select $1::int from nowhere", (1,), asyncpg.UndefinedTableError),
        (INSERT, (number, key, None, None, None, 0), asyncpg.UniqueViolationError),
    ]:
        with fails(kind):
            await connection.fetch(sql, *arguments)
        assert await connection.fetchval("select $1::int", number) == number
        with fails(kind):
            async with connection.transaction():
                await connection.execute(INSERT, number, key + 2, None, None, None, 5000)
                try:
                    await connection.fetch(sql, *arguments)
                finally:
                    with fails(asyncpg.InFailedSQLTransactionError):
                        await connection.fetchval("select $1::int", number)
        assert await connection.fetchval(COUNT, number, key + 2) == 0


async def save(connection, number, round):
    key = round * 100
    async with connection.transaction():
        await connection.execute(INSERT, number, key + 3, None, None, None, 1)
        with fails(asyncpg.UniqueViolationError):
            async with connection.transaction():
                await connection.execute(INSERT, number, key + 4, None, None, None, 1000)
                await connection.execute(INSERT, number, key + 3, None, None, None, 1000)
        await connection.execute(INSERT, number, key + 5, None, None, None, 1)
    assert [await connection.fetchval(COUNT, number, key + offset) for offset in (3, 4, 5)] == [1, 0, 1]


async def copy(connection, number, round):
    key = round * 100
    columns = ("owner", "number", "amount")
    records = [(number, key + 10 + value, 2) for value in range(20)]
    await connection.copy_records_to_table("item", records=records, columns=columns)
    with fails(asyncpg.UniqueViolationError):
        await connection.copy_records_to_table("item", records=records, columns=columns)
    with fails(asyncpg.InvalidTextRepresentationError):
        await connection.copy_to_table("item", source=io.BytesIO(b"no number\n"), columns=["owner"])
    out = io.BytesIO()
    select = "select number from item where owner = $1 and number between $2 and $3 order by 1"
    await connection.copy_from_query(select, number, key + 10, key + 39, output=out)
    assert [int(line) for line in out.getvalue().split()] == list(range(key + 10, key + 30))
    with fails(asyncpg.DivisionByZeroError):
        await connection.copy_from_query("select 1 / (3 - x) from generate_series(1, 5) x", output=io.BytesIO())
    async with connection.transaction():
        rows = connection.cursor("select value from generate_series($1::int, $2::int) value", number, number + 99, prefetch=7)
        assert [row[0] async for row in rows] == list(range(number, number + 100))


async def batch(connection, number, round):
    key = round * 100
    rows = [(number, key + 40 + value, f"batch {value}", [], None, 3) for value in range(10)]
    await connection.executemany(INSERT, rows)
    with fails(asyncpg.UniqueViolationError):
        await connection.executemany(INSERT, [(number, key + 60, None, None, None, 1000), *rows])
    assert await connection.fetchval(COUNT, number, key + 60) == 0
    # What a pool of the driver does when a connection is given back to it.
    await connection.reset()


async def large(connection, number):
    rows = await connection.fetch("select value, repeat($1::text, 100) from generate_series(1, 30000) value", str(number % 10))
    assert all(row == (index, str(number % 10) * 100) for index, row in enumerate(rows, 1))


async def cancel(connection, number):
    """Cancels a statement that another connection sees running."""
    text = f"select pg_sleep(60) /* of {number} */"
    sleep = asyncio.ensure_future(connection.fetchval(text))
    other = await connect()
    while not await other.fetchval("select count(*) from pg_stat_activity where state = 'active' and query = $1", text):
        pass
    sleep.cancel()
    with fails(asyncio.CancelledError):
        await sleep
    assert await connection.fetchval("select $1::int", number) == number
    with fails(asyncio.TimeoutError):
        async with connection.transaction():
            await connection.fetchval(text, timeout=0.2)
    await other.close()


async def work(connection, number):
    for round in range(1, ROUNDS + 1):
        for step in (select, write, err, save, copy, batch):
            await step(connection, number, round)
    if number % 10 == 0:
        await large(connection, number)
    if number % 25 == 0:
        await cancel(connection, number)
    await connection.close()


async def main():
    first = await connect()
    await first.execute(TABLES)
    connections = await asyncio.gather(*(connect() for _ in range(CONNECTIONS)))
    await asyncio.gather(*(work(connection, number) for number, connection in enumerate(connections)))
    print(*await first.fetchrow(TOTALS))


asyncio.run(main())
