"""Memory per idle client: clients that have logged in, asked once and then say nothing, on a pooler started for the purpose."""

import statistics

from . import contenders, processes, wire


def run(options, names, tls=False):
    """Contender name -> KiB per client, median over the rounds. A relay is left out: its clients would each cost a backend."""
    found = {}
    for name in names:
        if name != contenders.FLOOR:
            found[name] = statistics.median(measure(name, options, number, tls) for number in range(options.rounds))
    return found


def measure(name, options, number, tls):
    pooler = contenders.make(name, options, folder=f"idle-{name}-{number}-{'tls' if tls else 'plain'}")
    opened = []
    try:
        pooler.start()
        before = processes.memory_kib(pooler.pids())
        for _ in range(options.idle_clients):
            opened.append(wire.log_in(pooler.port, tls=tls))
            wire.ask(opened[-1], "select 1")
        return (processes.memory_kib(pooler.pids()) - before) / options.idle_clients
    finally:
        for client in opened:
            client.close()
        pooler.stop()
