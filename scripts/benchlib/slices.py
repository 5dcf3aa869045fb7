"""Slices: every scenario on every contender, round after round, in random order."""

import random
import statistics
import sys
from dataclasses import dataclass

from . import load, processes


@dataclass
class Slice:
    """One scenario on one contender for one slice. None is what could not be had."""

    round: int
    scenario: str
    contender: str
    throughput: float | None  # transactions per second
    p50_ms: float | None
    p99_ms: float | None
    cpu: float | None  # seconds of the pooler's processes per 1,000 transactions
    memory: float | None  # MiB, at the end of the slice
    errors: int


def run(options, scenarios, contenders):
    chance = random.Random(options.seed)
    slices = []
    for number in range(1, options.rounds + 1):
        order = [(scenario, contender) for scenario in scenarios for contender in contenders if contender.takes(scenario)]
        chance.shuffle(order)
        # A scenario's slices stay together, so that those who are compared run within seconds of each other.
        first_seen = {scenario.name: at for at, (scenario, _) in reversed(list(enumerate(order)))}
        order.sort(key=lambda pair: first_seen[pair[0].name])
        for done, (scenario, contender) in enumerate(order, start=1):
            progress(f"round {number}/{options.rounds}, slice {done}/{len(order)}: {scenario.name} on {contender.name}")
            slices.append(measure(number, scenario, contender, options))
    progress("")
    return slices


def measure(number, scenario, contender, options):
    cpus = set(range(1, processes.os.cpu_count())) if options.pin else None
    pids = contender.pids()
    before = processes.cpu_seconds(pids)
    outcome = load.run(scenario, contender.port, options.work, seconds=options.seconds, cpus=cpus)
    cpu = processes.cpu_seconds(pids) - before
    times = sorted(outcome.latencies_us)
    # With a connection per transaction pgbench's log leaves out the connecting: the mean over all clients is what there is.
    if scenario.connect_each:
        times = [scenario.clients / outcome.per_second * 1e6] if outcome.per_second else []
    return Slice(
        round=number,
        scenario=scenario.name,
        contender=contender.name,
        throughput=outcome.per_second or None,
        p50_ms=times[len(times) // 2] / 1000 if times else None,
        p99_ms=times[len(times) * 99 // 100] / 1000 if len(times) > 1 else None,
        cpu=cpu / outcome.transactions * 1000 if outcome.transactions else None,
        memory=processes.memory_kib(contender.pids()) / 1024,
        errors=outcome.errors,
    )


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def median(rounds, figure):
    return statistics.median(getattr(each, figure) for each in rounds.values())


def ratio(ours, theirs, figure):
    """The median of the ratios within each round: what changes from round to round changes both."""
    pairs = [(getattr(ours[at], figure), getattr(theirs[at], figure)) for at in ours if theirs and at in theirs]
    ratios = [a / b for a, b in pairs if a is not None and b]
    return statistics.median(ratios) if ratios else None


def against(ours, theirs, figure):
    """The ratio as a cell of a table; empty where there is nothing to compare with."""
    found = ratio(ours, theirs, figure)
    return f"x{found:.2f}" if found else ""
