"""Login storms: 64 clients with SELECT 1, alone and while others log in, 500 times a second. Once these prove by SCRAM who they are, with keys that
they have hashed before, and once they are strangers who guess, in clear text, so that the pooler has the hashing."""

import select
import socket
import struct
import threading
import time
from dataclasses import dataclass

from . import contenders, load, processes, slices, wire
from .report import rank
from .scenarios import Load
from .scram import Exchange, Password

TRAFFIC = Load("logins", 64, "simple", "select 1", sampling=0.2)
PER_SECOND = 500
PATIENCE = 10  # seconds for a login
KINDS = ("", "by SCRAM", "guesses")
MEMBER, STRANGER = "member", "stranger"
DATABASE = "storm"


@dataclass
class Weathered:
    """One slice, with a storm or without."""

    round: int
    contender: str
    storm: str
    throughput: float
    p50_ms: float
    p99_ms: float
    cpu: float  # share of a CPU that the pooler's processes took
    logins: float  # that were through, per second
    login_p99_ms: float | None
    own_cpu: float  # share of a CPU that those who log in took
    failures: int
    errors: int


def run(options):
    password = Password("of the bench")
    found, running = [], []
    names = [name for name in options.contender if name != contenders.FLOOR]
    try:
        for name in names:
            contender = contenders.make(name, options, folder=f"logins-{name}", visitors=Visitors(options, password))
            running.append(contender.start())
            # Opens the connection that greets them.
            run_storm(contender, password, "by SCRAM", 0.2)
        for number in range(1, options.rounds + 1):
            for contender in running:
                for kind in KINDS:
                    slices.progress(f"round {number}/{options.rounds}: {kind or 'no storm'} on {contender.name}")
                    found.append(measure(number, contender, kind, options, password))
        slices.progress("")
        return found
    finally:
        for contender in running:
            contender.stop()


class Visitors:
    """What a pooler's configuration holds for those who come in a storm: an entry of their own, a user, and rules."""

    def __init__(self, options, password):
        self.entry = f"{DATABASE} = host=127.0.0.1 port={options.postgres_port} dbname=bench user=postgres"
        self.secret = f'"{MEMBER}" "{password.verifier()}"'
        self.rules = f"host {DATABASE} {STRANGER} all password\nhost {DATABASE} all all scram-sha-256\nhost all all all trust\n"


def measure(number, contender, kind, options, password):
    pids = contender.pids()
    before, start = processes.cpu_seconds(pids), time.monotonic()
    storm = Storm(contender.port, password, kind)
    if kind:
        storm.start()
    outcome = load.run(TRAFFIC, contender.port, options.work, seconds=options.seconds)
    seconds = time.monotonic() - start
    cpu = processes.cpu_seconds(pids) - before
    if kind:
        storm.stop()
    times, waits = sorted(outcome.latencies_us), sorted(storm.times)
    return Weathered(
        round=number,
        contender=contender.name,
        storm=kind,
        throughput=outcome.per_second,
        p50_ms=times[len(times) // 2] / 1000 if times else None,
        p99_ms=times[len(times) * 99 // 100] / 1000 if times else None,
        cpu=cpu / seconds,
        logins=len(waits) / seconds,
        login_p99_ms=waits[len(waits) * 99 // 100] * 1000 if waits else None,
        own_cpu=storm.own_cpu / seconds,
        failures=storm.failures,
        errors=outcome.errors,
    )


def run_storm(contender, password, kind, seconds):
    storm = Storm(contender.port, password, kind)
    storm.start()
    time.sleep(seconds)
    storm.stop()
    if not storm.times:
        raise SystemExit(f"nobody can log in at {contender.name}\n{contender.output()}")


class Storm(threading.Thread):
    """Begins a login each 1/PER_SECOND s, however many are under way, until told to stop."""

    def __init__(self, port, password, kind):
        super().__init__(daemon=True)
        self.port, self.password, self.kind = port, password, kind
        self.times, self.failures, self.own_cpu = [], 0, 0.0
        self.over = threading.Event()

    def stop(self):
        self.over.set()
        self.join()

    def run(self):
        own, poll, clock = time.thread_time(), select.epoll(), time.monotonic
        visitors, due = {}, clock()
        while not self.over.is_set():
            while due <= clock():
                due += 1 / PER_SECOND
                visitor = Visitor(self.port, self.password, self.kind, clock())
                visitors[visitor.sock.fileno()] = visitor
                poll.register(visitor.sock, select.EPOLLIN)
            for number, _ in poll.poll(max(due - clock(), 0)):
                self.advance(visitors, poll, number, clock)
        for visitor in visitors.values():
            self.failures += clock() - visitor.since > PATIENCE
            visitor.sock.close()
        poll.close()
        self.own_cpu = time.thread_time() - own

    def advance(self, visitors, poll, number, clock):
        visitor = visitors[number]
        done = visitor.read()
        if done is None:
            return
        if done:
            self.times.append(clock() - visitor.since)
        else:
            self.failures += 1
        # A process that is being started may hold a duplicate, which would go on reporting.
        poll.unregister(number)
        visitor.sock.close()
        del visitors[number]


class Visitor:
    """One login."""

    def __init__(self, port, password, kind, since):
        self.since, self.kind, self.received = since, kind, b""
        self.exchange = Exchange(password)
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setblocking(False)
        user = MEMBER if kind == "by SCRAM" else STRANGER
        self.sock.send(wire.startup_packet(user, DATABASE))

    def read(self):
        """True: it is through, or a guess has been refused as it should be. False: it has failed."""
        try:
            data = self.sock.recv(4096)
        except BlockingIOError:
            return None
        except OSError:
            return False
        if not data:
            return False
        self.received += data
        while len(self.received) >= 5 and len(self.received) > struct.unpack("!i", self.received[1:5])[0]:
            length = struct.unpack("!i", self.received[1:5])[0] + 1
            kind, body, self.received = self.received[:1], self.received[5:length], self.received[length:]
            if kind == b"E":
                return self.kind == "guesses"
            if kind == b"Z":
                self.sock.send(b"X\0\0\0\x04")
                return True
            if kind == b"R":
                self.answer(struct.unpack("!i", body[:4])[0], body[4:])
        return None

    def answer(self, request, data):
        replies = {3: lambda: b"a guess\0", 10: self.exchange.first, 11: lambda: self.exchange.final(data)}
        if request in replies:
            body = replies[request]()
            self.sock.send(b"p" + struct.pack("!i", len(body) + 4) + body)


def report(found):
    """A row per contender and storm: medians over the rounds, and the ratio of the 99th percentile to the same round's without a storm."""
    of = {}
    for each in found:
        of.setdefault((each.contender, each.storm), {})[each.round] = each
    columns = ("tps", "p50 ms", "p99 ms", "to no storm", "CPU", "logins/s", "their p99 ms", "their CPU", "failed", "errors")
    print(f"\nlogins: {TRAFFIC.clients} clients with select 1, and {PER_SECOND} logins a second")
    print("  " + f"{'':26}" + "".join(f"{column:>14}" for column in columns))
    for name, storm in sorted(of, key=lambda key: (rank(key[0]), KINDS.index(key[1]))):
        rounds = of[name, storm]
        cells = (
            f"{slices.median(rounds, 'throughput'):.0f}",
            f"{slices.median(rounds, 'p50_ms'):.2f}",
            f"{slices.median(rounds, 'p99_ms'):.2f}",
            slices.against(rounds, of[name, ""] if storm else None, "p99_ms"),
            f"{slices.median(rounds, 'cpu'):.0%}",
            f"{slices.median(rounds, 'logins'):.0f}" if storm else "",
            f"{slices.median(rounds, 'login_p99_ms'):.2f}" if all(each.login_p99_ms for each in rounds.values()) else "",
            f"{slices.median(rounds, 'own_cpu'):.0%}" if storm else "",
            str(sum(each.failures for each in rounds.values())),
            str(sum(each.errors for each in rounds.values())),
        )
        print(f"  {name:13}{storm or 'no storm':13}" + "".join(f"{cell:>14}" for cell in cells))
