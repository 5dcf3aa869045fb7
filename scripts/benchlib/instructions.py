"""User-space instructions per transaction, counted by callgrind: the same on any machine and unmoved by its load.

Of pgfleet the worker is counted, which is what works for a transaction; the supervisor runs as it is.
"""

import pathlib
import re
import subprocess

from . import contenders, load, steady

CALLGRIND = ["valgrind", "--tool=callgrind", "--trace-children=yes"]


def run(options, names):
    """{(scenario name, contender name): instructions per transaction}, for the contenders of one process or worker."""
    found = {}
    for scenario in steady.LOADS:
        for name in names:
            if not name.endswith("-1"):
                continue

            def count(each, scenario=scenario, name=name):
                return under_callgrind(options, name, scenario, each)

            found[scenario.name, name] = steady.per_transaction(count, 50, 200).get("instructions")
    return found


def under_callgrind(options, name, scenario, each):
    """A run of a pooler started for it; (transactions, instructions)."""
    folder = pathlib.Path(options.work) / f"callgrind-{name}-{scenario.protocol}-{each}"
    out = f"--callgrind-out-file={folder}/process-0/callgrind.%p"
    prefix = with_worker(options, folder, out) if name.startswith("pgfleet") else [*CALLGRIND, out]
    pooler = contenders.make(name, options, prefix=prefix, folder=folder.name)
    try:
        pooler.start(patience=60)
        outcome = load.run(scenario, pooler.port, options.work, transactions_each=each, log=False)
    finally:
        pooler.stop()
    totals = 0
    for path in folder.glob("process-0/callgrind.*"):
        match = re.search(r"^(?:summary|totals): (\d+)", path.read_text(errors="replace"), re.M)
        totals += int(match[1]) if match else 0
    return outcome.transactions, {"instructions": totals}


def with_worker(options, folder, out):
    """What makes a supervisor start its worker under callgrind (see worker_under_callgrind.c)."""
    shim = pathlib.Path(options.work) / "worker_under_callgrind.so"
    if not shim.exists():
        source = pathlib.Path(__file__).with_name("worker_under_callgrind.c")
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"], check=True)
    return ["env", f"LD_PRELOAD={shim}", f"CALLGRIND_OUT={out}", f"CALLGRIND_BINARY={folder}/process-0/pgfleet"]
