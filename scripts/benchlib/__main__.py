"""A run from beginning to end."""

import dataclasses
import json
import os
import resource
import signal
import sys

from . import contenders, idle, instructions, logins, options, processes, report, scenarios, skew, slack, slices, syscalls


def main():
    # The launcher's shell starts this in the background with SIGINT ignored, which every child would inherit; and it ends it with
    # SIGTERM, on which the poolers must still be stopped.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    asked = options.parse(sys.argv[1:], scenarios.names(), contenders.NAMES)
    loads = [load for load in scenarios.loads() if chosen(load.name, asked)]
    special = [name for name in scenarios.SPECIAL if chosen(name, asked)]
    if asked.list:
        list_scenarios()
    elif asked.wants:
        print("wants: " + " ".join(wanted(asked, special)) + " ")
    else:
        compare(asked, loads, special)


def chosen(name, asked):
    if asked.scenario:
        return any(options.matches(pattern, name) for pattern in asked.scenario)
    return name not in scenarios.ON_REQUEST


def list_scenarios():
    for load in scenarios.loads():
        print(load.name)
    for name, meaning in scenarios.SPECIAL.items():
        print(f"{name:24} {meaning}" + (" (only when named)" if name in scenarios.ON_REQUEST else ""))


def wanted(asked, special):
    """What the launcher has to bring."""
    if not asked.binary and any(name.startswith("pgfleet") for name in asked.contender):
        yield "build"
    for program in ("pgbouncer", "haproxy"):
        if any(name.startswith(program) for name in asked.contender):
            yield program
    if "syscalls" in special or "slack" in special:
        yield "strace"
    if "instructions" in special:
        yield "valgrind"


def compare(asked, loads, special):
    if asked.pin:
        processes.pin_family(asked.postgres_pid, set(range(1, os.cpu_count())))
    raise_descriptor_limit(asked, special)
    describe(asked)
    running, loaded, found = [], [], []
    try:
        if loads or "syscalls" in special:
            running = [contenders.make(name, asked).start() for name in asked.contender]
        if loads:
            loaded = slices.run(asked, loads, running)
            report.slices(loaded, loads)
            found += loaded
        if "syscalls" in special:
            tool, counts = syscalls.run(asked, running)
            report.per_load(f"system calls per transaction (by {tool})", counts)
    finally:
        for contender in running:
            contender.stop()
    if "skew" in special:
        placed = skew.run(asked)
        if placed:
            skew.report(placed)
        found += placed
    if "slack" in special:
        swept = slack.run(asked)
        slack.report(swept)
        found += swept
    if "logins" in special:
        stormed = logins.run(asked)
        logins.report(stormed)
        found += stormed
    if "idle" in special:
        report.per_contender(f"memory per idle client ({asked.idle_clients} clients)", "KiB", idle.run(asked, asked.contender))
    if "tls-idle" in special:
        report.per_contender(f"memory per idle TLS client ({asked.idle_clients} clients)", "KiB", idle.run(asked, asked.contender, tls=True))
    if "instructions" in special:
        report.per_load("user-space instructions per transaction (callgrind)", instructions.run(asked, asked.contender))
    if asked.json:
        with open(asked.json, "w", encoding="ascii") as file:
            json.dump([dataclasses.asdict(each) for each in found], file, indent=1)
    if any(each.errors for each in loaded):
        sys.exit("errors: see the tables")


def raise_descriptor_limit(asked, special):
    """As far as it goes; the poolers inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if {"idle", "tls-idle"} & set(special) and hard < asked.idle_clients + 200:
        sys.exit(f"{asked.idle_clients} idle clients need more descriptors than the limit of {hard} (ulimit -n)")


def describe(asked):
    print(f"{os.cpu_count()} CPUs{', poolers pinned to the first' if asked.pin else ''}; {asked.pool_mode} pooling, "
          f"{asked.pool_size} server connections in all; N = {asked.workers}; "
          f"{asked.rounds} rounds of {asked.seconds} s; medians; ratios to PgBouncer and to {contenders.FLOOR}", flush=True)


main()
