"""User-space instructions per transaction, counted by callgrind: the same on any machine and unmoved by its load."""

import re

from . import contenders, load, steady


def run(options, names):
    """{(scenario name, contender name): instructions per transaction}, for the contenders of one process or worker."""
    found = {}
    for scenario in steady.LOADS:
        for name in names:
            if not name.endswith("-1"):
                continue

            def count(each, scenario=scenario, name=name):
                return under_callgrind(options, name, scenario, each)

            per = steady.per_transaction(count, 50, 200)
            found[scenario.name, name] = per.get("instructions")
    return found


def under_callgrind(options, name, scenario, each):
    """A run of a pooler started for it, all its processes together (callgrind writes a file for each)."""
    folder = f"callgrind-{name}-{scenario.protocol}-{each}"
    out = f"{options.work}/{folder}/process-0/callgrind.%p"
    prefix = ["valgrind", "--tool=callgrind", "--trace-children=yes", f"--callgrind-out-file={out}"]
    pooler = contenders.make(name, options, prefix=prefix, folder=folder)
    try:
        pooler.start(patience=60)
        outcome = load.run(scenario, pooler.port, options.work, transactions_each=each, log=False)
    finally:
        pooler.stop()
    totals = 0
    for path in pooler.folder.glob("process-0/callgrind.*"):
        match = re.search(r"^(?:summary|totals): (\d+)", path.read_text(errors="replace"), re.M)
        totals += int(match[1]) if match else 0
    return outcome.transactions, {"instructions": totals}
