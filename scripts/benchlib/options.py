"""The command line of scripts/bench."""

import argparse
import fnmatch
import os


def parse(arguments, scenario_names, contender_names):
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="pgfleet beside PgBouncer and HAProxy: throughput, latency, CPU and memory, interleaved in one run.",
    )
    add = parser.add_argument
    add("--scenario", action="append", metavar="NAME", default=[],
        help="run only this scenario or family (select1, select1-simple, 'select1-*-64'); may be repeated")
    add("--contender", action="append", metavar="NAME", default=[], choices=contender_names,
        help=f"run only this contender; may be repeated ({', '.join(contender_names)})")
    add("--list", action="store_true", help="print the scenarios and leave")
    add("--seconds", type=int, default=2, help="length of a slice (default: %(default)s)")
    add("--rounds", type=int, default=5, help="slices per scenario and contender (default: %(default)s)")
    add("--workers", type=int, default=os.cpu_count(), metavar="N",
        help="workers of pgfleet-N and processes of pgbouncer-N (default: the number of CPUs, here %(default)s)")
    add("--pool-size", type=int, default=20, help="server connections of each pooler in all (default: %(default)s)")
    add("--pool-mode", choices=["transaction", "session"], default="transaction", help="default: %(default)s")
    add("--idle-clients", type=int, default=2000, help="clients of the idle scenario (default: %(default)s)")
    add("--certificate", choices=["ecdsa", "rsa"], default="ecdsa", help="of the poolers, for TLS: P-256 or RSA-2048 (default: %(default)s)")
    add("--pin", action="store_true", help="poolers on CPU 0, pgbench and PostgreSQL on the others")
    add("--binary", metavar="PATH", help="this pgfleet instead of building one")
    add("--seed", type=int, help="of the random order")
    add("--json", metavar="FILE", help="write every slice's figures there too")
    hidden = argparse.SUPPRESS
    add("--wants", action="store_true", help=hidden)  # tell the launcher what to bring
    add("--work", help=hidden)
    add("--postgres-port", type=int, help=hidden)
    add("--postgres-pid", type=int, help=hidden)
    options = parser.parse_args(arguments)
    options.contender = options.contender or list(contender_names)
    if options.pin and os.cpu_count() < 2:
        parser.error("--pin needs two CPUs")
    if options.workers < 1 or options.rounds < 1 or options.seconds <= 0:
        parser.error("--workers, --rounds and --seconds must be positive")
    for pattern in options.scenario:
        if not any(matches(pattern, name) for name in scenario_names):
            parser.error(f"no scenario matches {pattern!r} (see --list)")
    return options


def matches(pattern, name):
    """A pattern is a name, the beginning of one up to a hyphen, or a shell pattern."""
    return name == pattern or name.startswith(pattern + "-") or fnmatch.fnmatchcase(name, pattern)
