"""One run of pgbench, and what it has to say: throughput, latencies, errors."""

import os
import pathlib
import re
import subprocess
import tempfile
from dataclasses import dataclass


@dataclass
class Outcome:
    transactions: int
    per_second: float
    latencies_us: list
    errors: int


def run(scenario, port, work, seconds=None, transactions_each=None, cpus=None, log=True):
    """Runs the load for a time, or a number of transactions by each client."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        command = command_line(scenario, port, pathlib.Path(folder), seconds, transactions_each, log)
        pin = (lambda: os.sched_setaffinity(0, cpus)) if cpus else None
        environment = {**os.environ, "PGSSLMODE": "require" if scenario.tls else "disable"}
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, preexec_fn=pin, env=environment, check=False)
        return read_outcome(done, latencies(pathlib.Path(folder)))


def command_line(scenario, port, folder, seconds, transactions_each, log):
    command = [
        os.environ["PGFLEET_PG_BIN"] + "/pgbench", "--no-vacuum", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres",
        "-c", str(scenario.clients), "-j", str(min(scenario.clients, os.cpu_count())), "-M", scenario.protocol,
    ]
    command += ["-T", str(seconds)] if seconds else ["-t", str(transactions_each)]
    if scenario.script is None:
        command += ["-S", "-s", "10"]
    else:
        (folder / "script.sql").write_text(scenario.script + ";\n")
        command += ["-f", "script.sql"]
    if scenario.connect_each:
        command += ["-C"]
    if log:
        command += ["-l", "--log-prefix=log"]
        if scenario.sampling < 1:
            command += [f"--sampling-rate={scenario.sampling}"]
    return [*command, "bench"]


def latencies(folder):
    """The logged latencies. pgbench reads its clock once per wake-up, so that a reply which is there before it first waits is logged
    as 0 µs, however long it took: on a busy machine that is many, and they say nothing."""
    found = []
    for path in folder.glob("log.*"):
        with open(path, encoding="ascii") as lines:
            found.extend(int(line.split(" ", 3)[2]) for line in lines)
    return [latency for latency in found if latency > 0]


def read_outcome(done, latencies_us):
    processed = re.search(r"^number of transactions actually processed: (\d+)", done.stdout, re.M)
    rate = re.search(r"^tps = ([\d.]+)", done.stdout, re.M)
    failed = re.search(r"^number of failed transactions: (\d+)", done.stdout, re.M)
    errors = int(failed[1]) if failed else 0
    errors += len(re.findall(r"^pgbench: error: ", done.stderr, re.M))
    if done.returncode != 0 and errors == 0:
        errors = 1
    if errors:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
        print(f"  pgbench: {first}", flush=True)
    return Outcome(
        transactions=int(processed[1]) if processed else 0,
        per_second=float(rate[1]) if rate else 0.0,
        latencies_us=latencies_us,
        errors=errors,
    )
