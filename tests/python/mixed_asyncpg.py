"""Mixed work through asyncpg: its own prepared statements with cache, COPY, cursors, executemany, timeouts. Prints `done`."""

import asyncio
import io
import sys

import asyncpg

PORT = int(sys.argv[1])


async def connect():
    return await asyncpg.connect(host="127.0.0.1", port=PORT, user="app", database="app", ssl=False)


async def work(number):
    connection = await connect()
    for round in range(20):
        assert await connection.fetchval("select $1::int + $2::int", number, round) == number + round
        statement = await connection.prepare("select generate_series(1, $1::int)")
        assert len(await statement.fetch(round)) == round
        async with connection.transaction():
            await connection.execute("create temp table t (x int, y text) on commit drop")
            await connection.executemany("insert into t values ($1, $2)", [(value, str(value)) for value in range(20)])
            await connection.copy_records_to_table("t", records=[(value, "copied") for value in range(20)])
            assert await connection.fetchval("select count(*) from t") == 40
            assert len([row async for row in connection.cursor("select * from t", prefetch=7)]) == 40
        out = io.BytesIO()
        await connection.copy_from_query("select x from generate_series(1, 50) x", output=out)
        assert len(out.getvalue().split()) == 50
        try:
            await connection.fetch("select 1/$1::int", 0)
            raise AssertionError("no error")
        except asyncpg.DivisionByZeroError:
            pass
    await connection.close()


async def timeout():
    """A timeout makes the driver send a cancel request."""
    connection = await connect()
    for _ in range(5):
        try:
            await connection.fetchval("select pg_sleep(60)", timeout=0.2)
            raise AssertionError("not cancelled")
        except asyncio.TimeoutError:
            pass
        assert await connection.fetchval("select 1") == 1
    await connection.close()


async def main():
    # Alone: what waits in a queue for a server is another subject than what runs.
    await timeout()
    await asyncio.gather(*(work(number) for number in range(8)))
    print("done")


asyncio.run(main())
