"""What asyncpg sees of the connection's own state: what it asked for at startup, errors that refuse or end it. Prints what it saw.

Usage: unnoticed_asyncpg.py PORT startup|reset|terminated|pid|names
       unnoticed_asyncpg.py PORT login USER PASSWORD DATABASE
"""

import asyncio
import sys

import asyncpg

PORT, SCENARIO = int(sys.argv[1]), sys.argv[2]
NAMES = ("search_path", "statement_timeout", "extra_float_digits", "application_name", "client_encoding", "jit")


async def connect(user="app", password=None, database="app", **options):
    return await asyncpg.connect(host="127.0.0.1", port=PORT, user=user, password=password, database=database, ssl=False, **options)


async def shown(connection):
    return {name: await connection.fetchval(f"show {name}") for name in NAMES}


async def outcome(awaitable):
    try:
        await awaitable
        return "no error"
    except asyncpg.PostgresError as error:
        return f"{type(error).__name__} {error.sqlstate}"


async def login():
    print(await outcome(connect(*sys.argv[3:])))


async def startup():
    """Connections that ask for different things take turns. The driver spells the encoding `utf-8`."""
    connections = [
        await connect(),
        await connect(server_settings={"search_path": "pg_catalog", "statement_timeout": "100", "jit": "off"}),
        await connect(server_settings={"application_name": "asks", "extra_float_digits": "0"}),
    ]
    for _ in range(2):
        for index, connection in enumerate(connections):
            print(index, await shown(connection), connection.get_settings().client_encoding, connection.get_settings().application_name)
            print(await outcome(connection.fetchval("select pg_sleep(0.25)")))


async def reset():
    """What the driver's pool does with a connection that is given back."""
    settings = {"search_path": "pg_catalog", "application_name": "mine"}
    connection = await connect(server_settings=settings)
    for _ in range(2):
        await connection.execute("set search_path to public; set application_name to 'changed'; set statement_timeout to 777")
        await connection.reset()
        print(await shown(connection))


async def terminated():
    connection, other = await connect(), await connect()
    text = "select pg_sleep(60) /* terminated */"
    sleep = asyncio.ensure_future(outcome(connection.fetchval(text)))
    end = "select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep' and query = $1"
    while not await other.fetchval(end, text):
        pass
    print(await sleep, connection.is_closed())


async def pid():
    connection, other = await connect(), await connect()
    print(connection.get_server_pid() == await connection.fetchval("select pg_backend_pid()"))
    # PostgreSQL names the sender of a notification by its pid.
    heard = asyncio.get_running_loop().create_future()
    await connection.add_listener("channel", lambda _, sender, *rest: heard.set_result(sender))
    await other.execute("notify channel")
    print(await heard == other.get_server_pid())


async def names():
    """The name of a statement that could not be prepared is free."""
    connection = await connect()
    print(await outcome(connection.prepare("select * from nowhere_yet", name="mine")))
    print(await outcome(connection.prepare("selec", name="mine")))
    statement = await connection.prepare("select $1::int + 1", name="mine")
    print(await statement.fetchval(41))


asyncio.run(globals()[SCENARIO]())
