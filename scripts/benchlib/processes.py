"""Starting processes as the ordinary user, and what the kernel says of them: children, CPU time, memory."""

import os
import pathlib
import shutil
import signal
import subprocess


def as_person(command):
    """The command as the ordinary user runs it (servers refuse to run as root)."""
    if os.geteuid() != 0:
        return list(command)
    user = os.environ["PGFLEET_TEST_USER"]
    return ["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--inh-caps=-all", "--", *command]


def give(path):
    """Makes the path the ordinary user's."""
    if os.geteuid() == 0:
        shutil.chown(path, os.environ["PGFLEET_TEST_USER"])


def start(command, folder, cpus=None):
    """Starts a server in a session of its own, its output in folder/output."""
    with open(folder / "output", "ab") as output:
        pin = (lambda: os.sched_setaffinity(0, cpus)) if cpus else None
        return subprocess.Popen(as_person(command), cwd=folder, stdin=subprocess.DEVNULL, stdout=output,
                                stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=pin)


def stop(process, how=signal.SIGINT, patience=15):
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            for pid in reversed(family([process.pid])):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            process.wait()


def family(pids):
    """These processes and all their descendants, parents first."""
    children = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue  # gone meanwhile
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found = list(pids)
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def cpu_seconds(pids):
    """CPU time of all threads, by the scheduler's own clock (nanoseconds, not ticks)."""
    total = 0
    for pid in pids:
        for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
            try:
                total += int((thread / "schedstat").read_text().split()[0])
            except OSError:
                continue
    return total / 1e9


def memory_kib(pids):
    """Proportional set size: what is shared is divided among its sharers."""
    total = 0
    for pid in pids:
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


def pin_family(pid, cpus):
    for member in family([pid]):
        os.sched_setaffinity(member, cpus)
