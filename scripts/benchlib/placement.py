"""Clients at the processes where a scenario wants them. Whom the kernel gives a connection to is its own affair, so connections are opened
until there are enough everywhere, and the rest are closed. It works on every pooler whose clients stay where they were accepted."""

import os
import pathlib
import time

from . import wire

BATCH = 100


def place(contender, counts, patience=60):
    """counts[i] logged-in clients at the i-th process that has clients, in the order of the processes' ids."""
    placed = [[] for _ in counts]
    pids = serving(contender)
    deadline = time.monotonic() + patience
    while any(len(clients) < count for clients, count in zip(placed, counts)):
        if time.monotonic() > deadline:
            raise SystemExit(f"{contender.name}: the clients cannot be placed as {counts}")
        fresh = [wire.log_in(contender.port) for _ in range(BATCH)]
        owners = owners_of_connections(contender.port, pids)
        for client in fresh:
            at = pids.index(owners[client.getsockname()[1]])
            if len(placed[at]) < counts[at]:
                placed[at].append(client)
            else:
                client.close()
    return [client for clients in placed for client in clients]


def serving(contender):
    """The processes that clients are at: of pgfleet the workers."""
    pids = contender.pids()
    return sorted(pids[1:] if contender.name.startswith("pgfleet") else pids)


def owners_of_connections(port, pids):
    """{port of a client: the process that has its connection}."""
    of_inode = {}
    for pid in pids:
        for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(entry)
            except OSError:
                continue  # closed meanwhile
            if target.startswith("socket:["):
                of_inode[target[8:-1]] = pid
    found = {}
    with open("/proc/net/tcp", encoding="ascii") as table:
        next(table)
        for line in table:
            words = line.split()
            if int(words[1].partition(":")[2], 16) == port and words[9] in of_inode:
                found[int(words[2].partition(":")[2], 16)] = of_inode[words[9]]
    return found
