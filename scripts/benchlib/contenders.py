"""The poolers under test: how each is configured and started.

All of them have the same number of server connections in all and trust everyone; connections are not logged.
"""

import os
import pathlib
import random
import shlex
import shutil
import signal
import socket
import subprocess
import time

from . import processes, wire

NAMES = ("pgfleet-1", "pgfleet-N", "pgbouncer-1", "pgbouncer-N", "haproxy")
FLOOR = "haproxy"
MAX_CLIENTS = 9500


def reference(name):
    """The PgBouncer that a contender is compared with."""
    return "pgbouncer-N" if name.endswith("-N") else "pgbouncer-1"


def free_port():
    """Below the range that the kernel gives to outgoing connections."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


class Contender:
    """A running pooler: some processes on one port. `prefix` is put before the command (a profiler); `settings` are lines for pgfleet only;
    `visitors` an entry, a secret and rules besides, for clients that are not trusted."""

    def __init__(self, name, options, prefix=(), folder=None, settings=(), visitors=None):
        self.name = name
        self.options = options
        self.prefix = list(prefix)
        self.settings = list(settings)
        self.visitors = visitors
        self.count = options.workers if name.endswith("-N") else 1
        self.port = free_port()
        self.folder = pathlib.Path(options.work) / (folder or name)
        self.cpus = {0} if options.pin else None
        self.started = []

    def start(self, patience=10):
        for index, command in enumerate(self.commands()):
            folder = self.folder / f"process-{index}"
            self.started.append(processes.start(self.prefix + command, folder, self.cpus))
        deadline = time.monotonic() + patience
        while True:
            try:
                wire.log_in(self.port).close()
                return self
            except (OSError, wire.Refused) as error:
                dead = any(process.poll() is not None for process in self.started)
                if dead or time.monotonic() > deadline:
                    self.stop()
                    raise SystemExit(f"{self.name} did not start: {error}\n{self.output()}") from error
                time.sleep(0.1)

    def stop(self, how=signal.SIGINT):
        for process in self.started:
            processes.stop(process, how)

    def output(self):
        return "".join(path.read_text(errors="replace")[-2000:] for path in sorted(self.folder.glob("process-*/output")))

    def takes(self, scenario):
        """Whether it can be put under this load."""
        return True

    def pids(self):
        return processes.family([process.pid for process in self.started])

    def place(self, index):
        """The folder of one process, writable by the ordinary user."""
        folder = self.folder / f"process-{index}"
        folder.mkdir(parents=True)
        processes.give(folder)
        return folder

    def commands(self):
        raise NotImplementedError

    def ini(self, folder, pool_size, extra):
        """The pgbouncer.ini that PgBouncer and pgfleet are given alike."""
        visitors = self.visitors
        users = private(folder / "userlist.txt", '"postgres" ""\n' + (f"{visitors.secret}\n" if visitors else ""))
        access = ["auth_type = trust"]
        if visitors:
            access = ["auth_type = hba", f"auth_hba_file = {private(folder / 'hba.conf', visitors.rules)}"]
        lines = [
            "[databases]",
            f"bench = host=127.0.0.1 port={self.options.postgres_port}",
            *([visitors.entry] if visitors else []),
            "[pgbouncer]",
            "listen_addr = 127.0.0.1",
            f"listen_port = {self.port}",
            "unix_socket_dir =",
            "listen_backlog = 4096",
            *access,
            f"auth_file = {users}",
            "admin_users = postgres",
            f"pool_mode = {self.options.pool_mode}",
            f"default_pool_size = {pool_size}",
            f"max_client_conn = {MAX_CLIENTS}",
            "max_prepared_statements = 200",
            "log_connections = 0",
            "log_disconnections = 0",
            *self.encryption(folder),
            *extra,
        ]
        path = folder / "pooler.ini"
        path.write_text("\n".join(lines) + "\n")
        return str(path)

    def encryption(self, folder):
        """Lines that let clients use TLS who want to, with a certificate made for this run."""
        files = {}
        for kind, content in certificate(self.options).items():
            files[kind] = private(folder / f"{kind}.pem", content.decode())
        return ["client_tls_sslmode = allow", f"client_tls_key_file = {files['key']}", f"client_tls_cert_file = {files['cert']}"]


def private(path, text):
    """A file for the pooler alone."""
    path.write_text(text)
    path.chmod(0o600)
    processes.give(path)
    return path


def certificate(options):
    """Key and certificate as PEM, the same for all."""
    key, cert = (pathlib.Path(options.work) / f"{kind}.pem" for kind in ("key", "cert"))
    if not cert.exists():
        kind = {"ecdsa": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["rsa:2048"]}[options.certificate]
        subprocess.run(["openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-newkey", *kind,
                        "-keyout", key, "-out", cert], check=True, capture_output=True)
    return {"key": key.read_bytes(), "cert": cert.read_bytes()}


class PgFleet(Contender):
    def commands(self):
        folder = self.place(0)
        binary = folder / "pgfleet"  # where the ordinary user can reach it
        shutil.copy(self.options.binary or os.environ["PGFLEET_BINARY"], binary)
        binary.chmod(0o755)
        return [[str(binary), self.configuration(folder)]]

    def configuration(self, folder):
        return self.ini(folder, self.options.pool_size, [f"workers = {self.count}", *self.settings])

    def change(self, settings):
        """Other settings from now on: a reload that has taken effect in every worker."""
        self.settings = list(settings)
        self.configuration(self.folder / "process-0")
        with wire.log_in(self.port, database="pgbouncer") as console:
            wire.ask(console, "RELOAD")


class PgBouncer(Contender):
    """As many processes on one port as asked; each has its share of the server connections."""

    def commands(self):
        program = shlex.split(os.environ["PGFLEET_PGBOUNCER"])
        share = -(-self.options.pool_size // self.count)
        return [[*program, self.ini(self.place(index), share, ["so_reuseport = 1"])] for index in range(self.count)]


class HaProxy(Contender):
    """One thread that relays bytes: a server connection per client."""

    def takes(self, scenario):
        return not scenario.tls

    def commands(self):
        folder = self.place(0)
        config = folder / "haproxy.cfg"
        config.write_text(f"""
global
    nbthread 1
    maxconn 4000
defaults
    mode tcp
    timeout connect 10s
    timeout client 1h
    timeout server 1h
listen postgres
    bind 127.0.0.1:{self.port} backlog 4096
    server postgres 127.0.0.1:{self.options.postgres_port}
""")
        return [["/usr/sbin/haproxy", "-db", "-f", str(config)]]


def make(name, options, **more):
    kind = {"pgfleet": PgFleet, "pgbouncer": PgBouncer, "haproxy": HaProxy}[name.partition("-")[0]]
    return kind(name, options, **more)
