"""A raw-frame client of the Keyless protocol, written from its description only.

Nothing here is shared with the Rust client or codec: a mistake in one of them cannot hide in both.

The connection is a plain socket and a TLS engine on memory buffers, so that a test decides what
goes into one TLS record, what goes into one packet, and when each side says goodbye.
"""

import select
import socket
import ssl
import struct
import time
from dataclasses import dataclass

# Item tags.
DIGEST, SNI, CLIENT_IP, SKI, SERVER_IP, CERTIFICATE_ID = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
OPCODE, PAYLOAD, CUSTOM, EXTRA, TRACE, CONTEXT, REGION = 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17
PADDING = 0x20
DEADLINE, SCHEME, EXTENDED, RETRY_AFTER, RECEIPT = 0x30, 0x31, 0x32, 0x33, 0x34

# Opcodes of answers, and the ones tests name often.
REPLY, PING, PONG, ERROR = 0xF0, 0xF1, 0xF2, 0xFF
RSA_DECRYPT, RSA_DECRYPT_RAW, ED25519_SIGN = 0x01, 0x08, 0x18
RSA_SIGN_SHA256, ECDSA_SIGN_SHA256, PSS_SIGN_SHA256 = 0x05, 0x15, 0x35
SEAL, UNSEAL, TICKET_KEYS = 0x21, 0x22, 0x46
SERVER_INFO, KEY_LIST = 0x47, 0x48

# Error codes.
CRYPTO_FAILURE, KEY_NOT_FOUND, VERSION_MISMATCH = 1, 2, 4
BAD_OPCODE, UNEXPECTED_OPCODE, FORMAT, INTERNAL, SEALING_KEY_EXPIRED = 5, 6, 7, 8, 10
DENIED = 0x21
"""Only to clients that sent the item 0x32."""

PATIENCE = 30.0
"""Seconds to wait for anything that should come at once."""


def item(tag, value=b""):
    """One item: tag, 16-bit length, value."""
    return struct.pack(">BH", tag, len(value)) + value


def frame(request_id, items, major=1, minor=0):
    """Header and items, without padding."""
    return struct.pack(">BBHI", major, minor, len(items), request_id) + items


def padded(request_id, items):
    """Header, items, and the padding a sender adds below 1024 bytes."""
    used = 8 + len(items)
    if used < 1024:
        items += item(PADDING, bytes(max(0, 1024 - used - 3)))
    return frame(request_id, items)


def request(request_id, opcode, payload=b"", ski=None, more=b""):
    """A request as a stock client sends it."""
    items = item(OPCODE, bytes([opcode])) + more
    if ski is not None:
        items += item(SKI, ski)
    if payload:
        items += item(PAYLOAD, payload)
    return padded(request_id, items)


@dataclass
class Answer:
    """One frame from the server."""

    id: int
    opcode: int
    payload: bytes

    @property
    def error(self):
        """The code of a refusal, or None."""
        return self.payload[0] if self.opcode == ERROR else None


def parse_answer(header, body):
    """Checks every rule a reply must keep, and returns it."""
    major, minor, length, request_id = struct.unpack(">BBHI", header)
    assert (major, minor) == (1, 0), f"version {major}.{minor}"
    assert length == len(body)
    items, at = {}, 0
    while at < len(body):
        assert at + 3 <= len(body), "trailing bytes in a reply"
        tag, size = struct.unpack_from(">BH", body, at)
        at += 3
        assert at + size <= len(body), "an item past the end of a reply"
        assert tag in (OPCODE, PAYLOAD, PADDING), f"a stock client does not know tag {tag:#x}"
        assert tag not in items, f"tag {tag:#x} twice in a reply"
        items[tag] = body[at : at + size]
        at += size
    opcode, payload = items[OPCODE], items.get(PAYLOAD)
    assert len(opcode) == 1 and opcode[0] in (REPLY, PONG, ERROR)
    assert payload != b"", "an empty payload is left out"
    payload = payload or b""
    if opcode[0] == ERROR:
        known = (*range(1, 12), DENIED)
        assert len(payload) == 1 and payload[0] in known, f"error payload {payload!r}"
    used = 8 + 4 + (3 + len(payload) if payload else 0)
    if used < 1024:
        assert items[PADDING] == bytes(max(0, 1024 - used - 3)), "the padding rule"
    else:
        assert PADDING not in items, "padding that nobody needs"
    return Answer(request_id, opcode[0], payload)


class Closed(Exception):
    """The server closed the connection; `clean` tells whether it said so in TLS."""

    def __init__(self, clean):
        super().__init__("close_notify" if clean else "closed without close_notify")
        self.clean = clean


def context(directory, client="edge-1", version=None, ciphers=None, authority=None):
    """A TLS context with one client's identity; `client=None` for none."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.load_verify_locations(authority or f"{directory}/pki/ca.pem")
    if client:
        tls.load_cert_chain(f"{directory}/pki/{client}.pem", f"{directory}/pki/{client}-key.pem")
    if version:
        tls.minimum_version = tls.maximum_version = version
    if ciphers:
        tls.set_ciphers(ciphers)
    return tls


class Connection:
    """One TLS connection, driven by hand."""

    def __init__(self, address, tls, session=None, buffers=None):
        """`buffers` bounds what the kernel holds for this side of the socket, in bytes each way."""
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if buffers:
            # Before connecting: the window that TCP announces is scaled to it.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = tls.wrap_bio(
            self.incoming, self.outgoing, server_hostname="localhost", session=session
        )
        self.plain = bytearray()
        self.next_id = 1
        self._handshake()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def _handshake(self):
        while True:
            try:
                self.tls.do_handshake()
                return self.flush()
            except ssl.SSLWantReadError:
                self.flush()
                self._receive()
            except ssl.SSLError:
                self.flush()
                raise

    def _receive(self, timeout=PATIENCE):
        """Takes what the socket has, waiting for the first byte."""
        self.socket.settimeout(timeout)
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            raise Closed(clean=False) from None
        if not data:
            raise Closed(clean=False)
        self.incoming.write(data)

    # Sending.

    def seal(self, plain):
        """Puts plaintext into records of its own; `flush` sends them."""
        view = memoryview(plain)
        while view:
            view = view[self.tls.write(view[:16384]) :]

    def flush(self):
        """Sends the sealed records."""
        data = self.outgoing.read()
        if data:
            self.socket.settimeout(PATIENCE)
            self.socket.sendall(data)

    def send(self, plain):
        """Seals and sends."""
        self.seal(plain)
        self.flush()

    def take_id(self):
        """An id not used on this connection before."""
        self.next_id += 1
        return self.next_id

    def finish_tls(self):
        """Says close_notify, and keeps the TCP connection open both ways."""
        try:
            self.tls.unwrap()
        except (ssl.SSLWantReadError, ssl.SSLError):
            pass
        self.flush()

    def finish_tcp(self):
        """Sends a FIN without close_notify."""
        self.socket.shutdown(socket.SHUT_WR)

    # Receiving.

    def read(self, timeout=PATIENCE):
        """Some plaintext, waiting for it."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                data = self.tls.read(65536)
                if not data:
                    raise Closed(clean=True)
                return data
            except ssl.SSLWantReadError:
                self.flush()
                self._receive(max(0.001, deadline - time.monotonic()))
            except ssl.SSLZeroReturnError:
                raise Closed(clean=True) from None

    def _take(self, count):
        while len(self.plain) < count:
            self.plain += self.read()
        taken = bytes(self.plain[:count])
        del self.plain[:count]
        return taken

    def answer(self):
        """The next frame, in whatever order they come."""
        header = self._take(8)
        return parse_answer(header, self._take(struct.unpack(">BBHI", header)[2]))

    def answers(self, count):
        """That many frames by id; each id once."""
        found = {}
        for _ in range(count):
            answer = self.answer()
            assert answer.id not in found, f"id {answer.id} was answered twice"
            found[answer.id] = answer
        return found

    def is_silent(self, seconds=0.2):
        """Whether nothing arrives for a while."""
        if self.plain or self.tls.pending():
            return False
        return not select.select([self.socket], [], [], seconds)[0]

    def expect_close(self, seconds=5.0, clean=True):
        """The server says close_notify (if `clean`) and nothing before it."""
        assert not self.plain, "bytes after the last frame"
        try:
            data = self.read(seconds)
        except Closed as closed:
            assert closed.clean or not clean, "closed without close_notify"
        except TimeoutError:
            raise AssertionError("the connection is still open") from None
        else:
            raise AssertionError(f"{len(data)} bytes came before the close")

    # Exchanges.

    def ask(self, opcode, payload=b"", ski=None, more=b""):
        """One request and its answer."""
        request_id = self.take_id()
        self.send(request(request_id, opcode, payload, ski, more))
        answer = self.answer()
        assert answer.id == request_id, f"asked {request_id}, answered {answer.id}"
        return answer

    def ask_items(self, items, major=1, minor=0):
        """One hand-made frame without padding, and its answer."""
        request_id = self.take_id()
        self.send(frame(request_id, items, major, minor))
        answer = self.answer()
        assert answer.id == request_id, f"asked {request_id}, answered {answer.id}"
        return answer

    def expect_alive(self):
        """A ping comes back."""
        answer = self.ask(PING, b"still there?")
        assert (answer.opcode, answer.payload) == (PONG, b"still there?")
