"""Clients of our own, in one thread: what pgbench cannot say is which process each of its clients is at, and how many answers each got.

A reply is read whole or in pieces and never taken apart: what ends with ReadyForQuery, outside a transaction, is complete.
"""

import select
import time
from dataclasses import dataclass, field

from . import wire

READY = b"Z\0\0\0\x05I"


class Crowd:
    """Clients that are logged in and take turns together: in a slice each asks its query again as soon as it is answered."""

    def __init__(self, sockets):
        self.members = {}
        self.poll = select.epoll()
        for sock in sockets:
            sock.setblocking(False)
            self.poll.register(sock, select.EPOLLIN)
            self.members[sock.fileno()] = Member(sock)

    def run(self, sql, seconds):
        """One slice; what is still unanswered at its end is waited for and not counted."""
        members, poll, clock, request = self.members, self.poll.poll, time.perf_counter_ns, wire.query(sql)
        own = time.process_time()
        latencies = []
        asked = {}
        for number, member in members.items():
            member.sock.send(request)
            asked[number] = clock()
        served = dict.fromkeys(members, 0)
        now = start = clock()
        end = start + int(seconds * 1e9)
        while now < end:
            for number, _ in poll(0.1):
                if members[number].is_answered():
                    now = clock()
                    latencies.append(now - asked[number])
                    served[number] += 1
                    asked[number] = now
                    members[number].sock.send(request)
            now = clock()
        seconds = (now - start) / 1e9
        own = (time.process_time() - own) / seconds
        self.rest()
        return Turn(seconds, latencies, list(served.values()), own)

    def rest(self, patience=30):
        """Waits until all are answered."""
        waiting = set(self.members)
        deadline = time.monotonic() + patience
        while waiting:
            if time.monotonic() > deadline:
                raise wire.Refused(f"{len(waiting)} clients were not answered within {patience} s")
            waiting -= {number for number, _ in self.poll.poll(0.1) if self.members[number].is_answered()}

    def close(self):
        for member in self.members.values():
            member.sock.close()
        self.poll.close()


class Member:
    def __init__(self, sock):
        self.sock = sock
        self.receive = sock.recv
        self.tail = b""

    def is_answered(self):
        data = self.receive(65536)
        if not data:
            raise wire.Refused("closed the connection")
        if self.tail:
            data = self.tail + data
        if data[:1] == b"E":
            raise wire.Refused(data.replace(b"\0", b" ").decode(errors="replace"))
        if data.endswith(READY):
            self.tail = b""
            return True
        self.tail = data
        return False


@dataclass
class Turn:
    """What one slice gave."""

    seconds: float
    latencies_ns: list = field(repr=False)
    served: list = field(repr=False)  # by client
    own_cpu: float  # how much of a CPU these clients themselves took

    @property
    def answers(self):
        return len(self.latencies_ns)

    @property
    def asked(self):
        """Those included that were answered after the end."""
        return len(self.latencies_ns) + len(self.served)

    def percentile_ms(self, share):
        ordered = sorted(self.latencies_ns)
        return ordered[int(len(ordered) * share)] / 1e6 if ordered else None
