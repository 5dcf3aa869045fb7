"""Clients spread evenly over the processes, unevenly, and all at one of them: what that does to a pool that is one, and to a pool in pieces."""

import argparse
import random
from dataclasses import dataclass, field

from . import contenders, placement, processes, slices, wire
from .crowd import Crowd

PROCESSES = 4
PLACEMENTS = {"even": (50, 50, 50, 50), "mixed": (140, 40, 15, 5), "skewed": (200, 0, 0, 0)}
QUERY = "select pg_sleep(0.005)"
USED = """select count(*) from pg_stat_activity
          where backend_type = 'client backend' and pid <> pg_backend_pid() and query_start >= '{since}' and query = '{query}'"""


@dataclass
class Placed:
    """One placement on one contender for one slice."""

    round: int
    contender: str
    placement: str
    throughput: float
    p50_ms: float
    p99_ms: float
    cpu: float  # microseconds of the pooler's processes per transaction
    backends: int  # that served in this slice
    own_cpu: float  # how much of a CPU the clients themselves took
    served: list = field(repr=False)


def run(options):
    options = argparse.Namespace(**{**vars(options), "workers": PROCESSES})
    names = [name for name in options.contender if name.endswith("-N")]
    found, running, crowds = [], [], {}
    try:
        for name in names:
            contender = contenders.make(name, options, folder=f"skew-{name}", settings=["accept_balance = 0"])
            running.append(contender.start())
            for kind, counts in PLACEMENTS.items():
                slices.progress(f"placing clients: {kind} on {name}")
                crowds[contender, kind] = Crowd(placement.place(contender, counts))
                crowds[contender, kind].run(QUERY, 1)  # opens the connections
        chance = random.Random(options.seed)
        for number in range(1, options.rounds + 1):
            order = list(crowds)
            chance.shuffle(order)
            for contender, kind in order:
                slices.progress(f"round {number}/{options.rounds}: {kind} on {contender.name}")
                found.append(measure(number, contender, kind, crowds[contender, kind], options))
        slices.progress("")
        return found
    finally:
        for crowd in crowds.values():
            crowd.close()
        for contender in running:
            contender.stop()


def measure(number, contender, kind, crowd, options):
    pids = contender.pids()
    with wire.log_in(options.postgres_port) as postgres:
        [since] = wire.ask(postgres, "select clock_timestamp()")
        before = processes.cpu_seconds(pids)
        turn = crowd.run(QUERY, options.seconds)
        cpu = processes.cpu_seconds(pids) - before
        [used] = wire.ask(postgres, USED.format(since=since, query=QUERY))
    return Placed(
        round=number,
        contender=contender.name,
        placement=kind,
        throughput=turn.answers / turn.seconds,
        p50_ms=turn.percentile_ms(0.5),
        p99_ms=turn.percentile_ms(0.99),
        cpu=cpu / turn.asked * 1e6,
        backends=int(used),
        own_cpu=turn.own_cpu,
        served=turn.served,
    )


def report(found):
    """A row per contender and placement, medians over the rounds. Ratios: to the same contender's even placement, and to PgBouncer in the same
    placement."""
    of = {}
    for each in found:
        of.setdefault((each.contender, each.placement), {})[each.round] = each
    columns = ("tps", "to even", "to PgBouncer", "backends", "p50 ms", "p99 ms", "slowest/fastest", "CPU us/tx", "to PgBouncer")
    print(f"\nskew: {sum(PLACEMENTS['even'])} clients, {QUERY}, {PROCESSES} workers or processes")
    print("  " + f"{'':20}" + "".join(f"{column:>16}" for column in columns))
    for name, kind in sorted(of, key=lambda key: (list(PLACEMENTS).index(key[1]), key[0] == "pgbouncer-N")):
        rounds = of[name, kind]
        other = of.get(("pgbouncer-N", kind)) if name != "pgbouncer-N" else None
        cells = (
            f"{slices.median(rounds, 'throughput'):.0f}",
            slices.against(rounds, of[name, "even"] if kind != "even" else None, "throughput"),
            slices.against(rounds, other, "throughput"),
            f"{slices.median(rounds, 'backends'):.0f}",
            f"{slices.median(rounds, 'p50_ms'):.1f}",
            f"{slices.median(rounds, 'p99_ms'):.1f}",
            f"{evenness(rounds.values()):.2f}",
            f"{slices.median(rounds, 'cpu'):.1f}",
            slices.against(rounds, other, "cpu"),
        )
        print("  " + f"{name + ' ' + kind:20}" + "".join(f"{text:>16}" for text in cells))
    print(f"  the clients took {max(each.own_cpu for each in found):.0%} of a CPU at most")


def evenness(each):
    """Answers to the client that got the fewest over those to the client that got the most, in all rounds together."""
    served = [sum(counts) for counts in zip(*(one.served for one in each))]
    return min(served) / max(served)
