"""System calls per transaction of a pooler's processes under load.

Counted by the kernel's tracepoints (perf stat), which hardly disturb; where perf may not do that, by strace, which slows the pooler
down so much that it finds more to do per turn: its figures are somewhat low for everyone. The table names the tool.
"""

import re
import shutil
import signal
import subprocess
import tempfile
import time

from . import load, steady

NAMED = ("epoll_wait", "epoll_pwait", "epoll_pwait2", "epoll_ctl", "read", "readv", "recvfrom", "recvmsg", "write", "writev", "sendto",
         "sendmsg", "futex", "clock_gettime", "timerfd_settime")
TOTAL = "raw_syscalls:sys_enter"


def run(options, contenders):
    """{(scenario name, contender name): {system call: number per transaction}}; "total" is the sum of all."""
    tool = Perf if perf_works() else Strace
    found = {}
    for scenario in steady.LOADS:
        for contender in contenders:
            def count(each, scenario=scenario, contender=contender):
                with tool(contender.pids(), options.work) as counter:
                    outcome = load.run(scenario, contender.port, options.work, transactions_each=each, log=False)
                return outcome.transactions, counter.counts

            found[scenario.name, contender.name] = steady.per_transaction(count, 200, 1000)
    return tool.__name__.lower(), found


def perf_works():
    if not shutil.which("perf"):
        return False
    done = subprocess.run(["perf", "stat", "-x;", "-e", TOTAL, "true"], capture_output=True, text=True, check=False)
    return re.search(r"^\d+;", done.stderr, re.M) is not None


class Counter:
    """Counts from entering the block to leaving it; then `counts` holds {system call: number}."""

    def __init__(self, pids, work):
        self.pids = ",".join(map(str, pids))
        self.file = tempfile.NamedTemporaryFile(mode="r", dir=work)
        self.counts = {}

    def __enter__(self):
        self.process = subprocess.Popen(self.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.5)  # until it has attached to all of them
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        self.counts = self.read(self.file.read())
        self.file.close()


class Perf(Counter):
    def command(self):
        events = [TOTAL] + [f"syscalls:sys_enter_{name}" for name in NAMED]
        command = ["perf", "stat", "-x;", "-o", self.file.name, "-p", self.pids]
        for event in events:
            command += ["-e", event]
        return command

    def read(self, text):
        counts = {}
        for number, event in re.findall(r"^(\d+);[^;]*;([a-z0-9_:]+);", text, re.M):
            counts["total" if event == TOTAL else event.removeprefix("syscalls:sys_enter_")] = int(number)
        return counts


class Strace(Counter):
    def command(self):
        command = ["strace", "-c", "-f", "-q", "-U", "calls,name", "-o", self.file.name]
        for pid in self.pids.split(","):
            command += ["-p", pid]
        return command

    def read(self, text):
        return {name: int(number) for number, name in re.findall(r"^\s*(\d+)\s+(\w+)\s*$", text, re.M)}
