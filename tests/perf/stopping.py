"""How soon `ksctl keys disable` stops a key under load, whether it stays stopped over a SIGKILL, and what other keys notice.

Everything is seen by one loop over the sockets of the clients and the output of the command. A signature counts from
when it has been read, and the command from when its output could be: whatever delays this process makes a
signature later, never sooner.
"""

import hashlib
import selectors
import signal
import socket
import ssl
import struct
import subprocess
import time

from processes import Failure, Load
from scenarios import Row, closed, number, scenario, world

RUNS = 10
CONNECTIONS = 4
IN_FLIGHT = 8
#: A refusal costs nothing: asked again at once, refusals would be all that this process does.
PAUSE_SECONDS = 0.005

#: Opcodes and items of the protocol: docs/protocol.md.
RSA_SIGN_SHA256, REPLY = 0x05, 0xF0
OPCODE, PAYLOAD, SKI, PADDING = 0x11, 0x12, 0x04, 0x20


def request(ski):
    items = b""
    for tag, value in ((OPCODE, bytes([RSA_SIGN_SHA256])), (SKI, ski), (PAYLOAD, bytes(32))):
        items += struct.pack(">BH", tag, len(value)) + value
    rest = 1024 - 8 - len(items) - 3
    items += struct.pack(">BH", PADDING, rest) + bytes(rest)
    return struct.pack(">BBHI", 1, 0, len(items), 1) + items


def ski(path):
    """SHA-1 of the subjectPublicKey bits, which are the last of an RSA key's SubjectPublicKeyInfo."""
    spki = subprocess.run(
        ["openssl", "pkey", "-in", path, "-pubout", "-outform", "DER"], capture_output=True, check=True
    ).stdout
    return hashlib.sha1(spki[24:]).digest()


class Client:
    """A connection that always has requests for one key in flight."""

    def __init__(self, server, key):
        self.key, self.request, self.received = key, request(key), b""
        tls = ssl.create_default_context(cafile=server.world.path("pki/ca.pem"))
        pki = [server.world.path(f"pki/{name}.pem") for name in ("edge", "edge-key")]
        tls.load_cert_chain(*pki)
        plain = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = tls.wrap_socket(plain, server_hostname="localhost")
        self.stream.sendall(self.request * IN_FLIGHT)
        self.stream.setblocking(False)

    def ask(self):
        self.stream.setblocking(True)
        self.stream.sendall(self.request)
        self.stream.setblocking(False)

    def answers(self):
        """For each answer that has come, whether it is a signature."""
        try:
            while data := self.stream.recv(65_536):
                self.received += data
            raise Failure("the server closed a connection")
        except ssl.SSLWantReadError:
            pass
        while len(self.received) >= 8:
            end = 8 + struct.unpack_from(">H", self.received, 2)[0]
            if len(self.received) < end:
                return
            frame, self.received = self.received[:end], self.received[end:]
            at = 8
            while frame[at] != OPCODE:
                at += 3 + struct.unpack_from(">H", frame, at + 1)[0]
            yield frame[at + 3] == REPLY


class Watch:
    """The clients of two keys, and the command."""

    def __init__(self, server, keys):
        self.selector = selectors.DefaultSelector()
        self.clients = [Client(server, key) for key in keys for _ in range(CONNECTIONS)]
        for client in self.clients:
            self.selector.register(client.stream, selectors.EVENT_READ, client)
        self.signed = {key: [] for key in keys}
        self.refused = {key: [] for key in keys}
        self.due = []
        self.returned = None

    def run(self, seconds, command=None):
        """Goes on for so long, from the return of the command if there is one."""
        if command:
            self.selector.register(command.stdout, selectors.EVENT_READ)
        began = time.monotonic()
        while command or time.monotonic() - (self.returned or began) < seconds:
            if time.monotonic() - began > 30:
                raise Failure("the command does not return")
            events = self.selector.select(0.001)
            seen = time.monotonic()
            for selected, _ in events:
                if selected.data is None:
                    self.selector.unregister(command.stdout)
                    self.returned, said = seen, command.stdout.read()
                    if command.wait() or said != b"stopped\n":
                        raise Failure(f"ksctl: {said}")
                    command = None
                else:
                    self.take(selected.data)
            while self.due and self.due[0][0] <= seen:
                self.due.pop(0)[1].ask()

    def take(self, client):
        for is_signature in client.answers():
            now = time.monotonic()
            if is_signature:
                self.signed[client.key].append(now)
                client.ask()
            else:
                self.refused[client.key].append(now)
                self.due.append((now + PAUSE_SECONDS, client))

    def close(self):
        for client in self.clients:
            client.stream.close()
        self.selector.close()


@scenario("stopping", "how long after `ksctl keys disable` a signature comes, ten times under load and SIGKILL")
def stopping(machine):
    with world(rsa=False) as made:
        keys = [ski(made.add_site(name, "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"))
                for name in ("victim", "other")]
        victim, other = keys
        state = made.path("state")
        state.mkdir(mode=0o700)
        extra = f'[admin]\nsocket = "admin.sock"\nstate = "{state}"\n'

        def ksctl(*arguments):
            command = [machine.keyserver.with_name("ksctl"), "--socket", made.path("admin.sock"), *arguments]
            return machine.spawn(machine.load_core, command, stdout=subprocess.PIPE)

        late, after_kill, lost, others = [], 0, 0, 0
        for run in range(RUNS):
            with machine.server(made, extra=extra) as server:
                load = Load(machine, server, "edge", *closed(8, 8, "p256"), seconds=60)
                watch = Watch(server, keys)
                watch.run(0.5)
                if watch.refused[victim]:
                    raise Failure("refused before it was stopped")
                watch.run(0.3, ksctl("keys", "disable", "victim", "--reason", "measured"))
                server.process.send_signal(signal.SIGKILL)
                server.process.wait()
                load.stop()
                watch.close()
            late.append(1e3 * max(0.0, max(watch.signed[victim]) - watch.returned))
            if not watch.refused[victim] or max(watch.signed[other]) < watch.returned + 0.2:
                raise Failure("the load did not go on")
            lost += len(watch.refused[other])
            others += len(watch.signed[other])
            with machine.server(made, extra=extra) as server:
                watch = Watch(server, keys)
                watch.run(0.3)
                watch.close()
                after_kill += len(watch.signed[victim])
                lost += len(watch.refused[other])
                others += len(watch.signed[other])
                enable = ksctl("keys", "enable", "victim", "--reason", "next run")
                if enable.communicate() and enable.returncode:
                    raise Failure("ksctl keys enable failed")
        yield Row(
            "last signature after `ksctl keys disable` returned, worst of ten runs", max(late), "ms",
            at_most=10, note="each: " + ", ".join(f"{value:.2f}" for value in late),
        )
        yield Row("signatures after SIGKILL and restart", after_kill, "", at_most=0)
        yield Row("failed requests of another key", lost, "", at_most=0, note=f"of {number(others)}")
