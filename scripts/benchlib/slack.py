"""fairness_slack: how much longer another worker's client must have waited to go first. Small values pass connections on all the time, large
ones let the clients of a worker with few servers wait."""

import argparse
import random
import statistics
from dataclasses import dataclass, field

from . import contenders, placement, processes, slices, syscalls
from .crowd import Crowd
from .skew import evenness

VALUES_MS = (0, 1, 5, 15, 50, 200)
USUAL_MS = 15
QUERIES = ("select 1", "select pg_sleep(0.005)")
CLIENTS = (64, 200)
# Shares of the clients, by number of workers and placement.
SHARES = {
    (2, "even"): (0.5, 0.5),
    (2, "mixed"): (0.85, 0.15),
    (4, "even"): (0.25, 0.25, 0.25, 0.25),
    (4, "mixed"): (0.7, 0.2, 0.075, 0.025),
}


@dataclass
class Swept:
    """One value on one load for one slice; `round` 0 is the one in which system calls are counted, and only they hold."""

    round: int
    query: str
    clients: int
    workers: int
    placement: str
    slack_ms: int
    throughput: float
    p99_ms: float
    cpu: float  # microseconds of the pooler's processes per transaction
    own_cpu: float  # how much of a CPU the clients themselves took
    calls: dict  # system calls per transaction
    served: list = field(repr=False)


def run(options):
    """Round after round; the values on one load follow one another, in random order."""
    found, fleets, crowds = [], {}, {}
    tool = syscalls.Perf if syscalls.perf_works() else syscalls.Strace
    try:
        for (workers, kind), shares in SHARES.items():
            if workers not in fleets:
                own = argparse.Namespace(**{**vars(options), "workers": workers})
                fleets[workers] = contenders.make("pgfleet-N", own, folder=f"slack-{workers}", settings=settings(USUAL_MS)).start()
            for clients in CLIENTS:
                slices.progress(f"placing {clients} clients: {kind} on {workers} workers")
                crowds[clients, workers, kind] = Crowd(placement.place(fleets[workers], counts(shares, clients)))
                crowds[clients, workers, kind].run(QUERIES[0], 0.5)  # opens the connections
        loads = [(query, *key) for query in QUERIES for key in crowds]
        chance = random.Random(options.seed)
        for number in range(options.rounds + 1):
            chance.shuffle(loads)
            for load in loads:
                for slack_ms in chance.sample(VALUES_MS, len(VALUES_MS)):
                    slices.progress(f"round {number}/{options.rounds}: {load} with {slack_ms} ms")
                    fleet = fleets[load[2]]
                    fleet.change(settings(slack_ms))
                    found.append(measure(number, load, slack_ms, fleet, crowds[load[1:]], options, tool if number == 0 else None))
        slices.progress("")
        return found
    finally:
        for crowd in crowds.values():
            crowd.close()
        for fleet in fleets.values():
            fleet.stop()


def settings(slack_ms):
    return ["accept_balance = 0", f"fairness_slack = {slack_ms / 1000}"]


def counts(shares, clients):
    """Whole numbers that come to `clients` in all."""
    rounded = [round(share * clients) for share in shares]
    return (clients - sum(rounded[1:]), *rounded[1:])


def measure(number, load, slack_ms, fleet, crowd, options, tool):
    pids = fleet.pids()
    if tool:
        with tool(pids, options.work) as counter:
            turn = crowd.run(load[0], options.seconds)
        calls = {name: count / turn.asked for name, count in counter.counts.items()}
        cpu = None
    else:
        before = processes.cpu_seconds(pids)
        turn = crowd.run(load[0], options.seconds)
        cpu, calls = (processes.cpu_seconds(pids) - before) / turn.asked * 1e6, {}
    return Swept(number, *load, slack_ms, turn.answers / turn.seconds, turn.percentile_ms(0.99), cpu, turn.own_cpu, calls, turn.served)


def report(found):
    """A row per load and value. CPU's ratio is to the usual value in the same round."""
    columns = ("tps", "CPU us/tx", "to usual", "calls/tx", "sendmsg/tx", "p99 ms", "slowest/fastest")
    by_load = {}
    for each in found:
        of = by_load.setdefault((each.query, each.clients, each.workers, each.placement), {})
        of.setdefault(each.slack_ms, {})[each.round] = each
    for (query, clients, workers, kind), of in sorted(by_load.items()):
        print(f"\nslack: {query}, {clients} clients, {workers} workers, {kind}")
        print("  " + f"{'':10}" + "".join(f"{column:>16}" for column in columns))
        for slack_ms, every in sorted(of.items()):
            rounds = {number: each for number, each in every.items() if number > 0}
            calls = every[0].calls
            cells = (
                f"{slices.median(rounds, 'throughput'):.0f}",
                f"{slices.median(rounds, 'cpu'):.1f}",
                slices.against(rounds, of[USUAL_MS], "cpu"),
                f"{calls.get('total', 0):.2f}",
                f"{calls.get('sendmsg', 0):.3f}",
                f"{slices.median(rounds, 'p99_ms'):.1f}",
                f"{evenness(rounds.values()):.2f}",
            )
            print("  " + f"{f'{slack_ms} ms':10}" + "".join(f"{text:>16}" for text in cells))
    summary(by_load)
    print(f"  the clients took {max(each.own_cpu for each in found):.0%} of a CPU at most")


def summary(by_load):
    """A row per query and value: the loads' median of each figure, and the least even of them."""
    columns = ("CPU to usual", "p99 to usual", "calls/tx", "sendmsg/tx", "slowest/fastest", "at worst")
    print("\nslack: all loads\n  " + f"{'':32}" + "".join(f"{column:>16}" for column in columns))
    for query in QUERIES:
        loads = [of for load, of in by_load.items() if load[0] == query]
        for slack_ms in VALUES_MS:
            timed = [({n: each for n, each in of[slack_ms].items() if n > 0}, of[USUAL_MS]) for of in loads]
            counted = [of[slack_ms][0].calls for of in loads]
            shares = [evenness(rounds.values()) for rounds, _ in timed]
            cells = (
                *(f"x{statistics.median(slices.ratio(ours, usual, what) for ours, usual in timed):.2f}" for what in ("cpu", "p99_ms")),
                f"{statistics.median(calls.get('total', 0) for calls in counted):.2f}",
                f"{statistics.median(calls.get('sendmsg', 0) for calls in counted):.3f}",
                f"{statistics.median(shares):.2f}",
                f"{min(shares):.2f}",
            )
            print("  " + f"{f'{query}, {slack_ms} ms':32}" + "".join(f"{text:>16}" for text in cells))
