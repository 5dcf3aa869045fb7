"""The scenarios: what load each one is, and how it is measured."""

from dataclasses import dataclass

PROTOCOLS = ("simple", "extended", "prepared")
CLIENTS = (1, 8, 64, 256)
HUNDRED_MEGABYTES = "select repeat('x', 1000) from generate_series(1, 100000)"


@dataclass(frozen=True)
class Load:
    """A pgbench load. `script` None is pgbench's own select-only script."""

    name: str
    clients: int
    protocol: str = "simple"
    script: str | None = None
    connect_each: bool = False  # a new connection for every transaction
    tls: bool = False  # between client and pooler
    sampling: float = 1.0  # share of the transactions whose latency is logged


def loads():
    for family, script in (("select1", "select 1"), ("pgbench", None)):
        for protocol in PROTOCOLS:
            for clients in CLIENTS:
                yield Load(f"{family}-{protocol}-{clients}", clients, protocol, script, sampling=0.2)
    yield Load("large-result", 2, script=HUNDRED_MEGABYTES)
    yield Load("connect", 8, script="select 1", connect_each=True)
    for protocol in PROTOCOLS:
        yield Load(f"tls-select1-{protocol}-64", 64, protocol, "select 1", tls=True, sampling=0.2)
    yield Load("tls-pgbench-simple-64", 64, tls=True, sampling=0.2)
    yield Load("tls-large-result", 2, script=HUNDRED_MEGABYTES, tls=True)
    yield Load("tls-connect", 8, script="select 1", connect_each=True, tls=True)


# Measured in ways of their own, each in the file of its name.
SPECIAL = {
    "idle": "memory per idle client",
    "tls-idle": "memory per idle TLS client",
    "logins": "p99 of 64 clients while others log in, 500 times a second",
    "syscalls": "system calls per transaction at 64 clients",
    "skew": "200 clients over four workers or processes: evenly, unevenly, all at one",
    "slack": "pgfleet's fairness_slack: what it costs and what it gives",
    "instructions": "user-space instructions per transaction at 64 clients, under callgrind (of pgfleet: the worker's)",
}
# Not part of a run unless named.
ON_REQUEST = ("syscalls", "instructions", "slack")


def names():
    return [load.name for load in loads()] + list(SPECIAL)
