"""Any bytes at any time: the server answers or closes, and other clients do not notice."""

import contextlib
import os
import random
import struct
import threading
import time

import keyless
from differences import client_hello
from keys import HASHES, digest_of
from world import expect_output


@contextlib.contextmanager
def witness(world):
    """Another client signing all the while, before, during and after; fails the check when one of
    its requests does."""
    key = world.ec_keys()[0]
    stop, troubles, served = threading.Event(), [], threading.Semaphore(0)

    def work():
        try:
            with world.connect() as connection:
                while not stop.is_set():
                    digest = os.urandom(32)
                    signature = expect_output(connection.ask(0x15, digest, key.ski))
                    key.verify_ecdsa(signature, digest, HASHES[3][2])
                    served.release()
                    time.sleep(0.005)
        except Exception as trouble:
            troubles.append(trouble)

    def one_more():
        """Waits for a request that begins after now."""
        while served.acquire(blocking=False):
            pass
        for _ in range(2):
            assert served.acquire(timeout=keyless.PATIENCE), f"another client suffered: {troubles}"

    thread = threading.Thread(target=work)
    thread.start()
    try:
        one_more()
        yield
        one_more()
    finally:
        stop.set()
        thread.join()
    assert not troubles, f"another client suffered: {troubles[0]!r}"


def ended(tcp, seconds=20):
    """Whether the server closes this socket in time: long before it would for want of a handshake."""
    tcp.settimeout(seconds)
    with contextlib.suppress(ConnectionError):
        while tcp.recv(65536):
            pass
    return True


def check_bytes_before_the_handshake(world):
    chance = random.Random(1)
    hello = client_hello(world)
    samples = [chance.randbytes(n) for n in (1, 5, 16, 200, 70000)]
    samples += [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        keyless.request(1, keyless.PING, b"no TLS"),
        b"\x16\x03\x01\xff\xff" + chance.randbytes(70000),
        b"\x16\x03\x01\x00\x00" * 1000,
        b"\x15\x03\x03\x00\x02\x01\x00",
        b"\x14\x03\x03\x00\x01\x01",
        b"\x17\x03\x03\x00\x20" + bytes(32),
        hello + b"\xff" * 100,
        hello + hello,
    ]
    for at in chance.sample(range(len(hello)), 40):
        samples.append(hello[:at] + bytes([hello[at] ^ 1 << chance.randrange(8)]) + hello[at + 1 :])
    with witness(world):
        for sample in samples:
            with world.tcp() as tcp:
                with contextlib.suppress(ConnectionError):
                    tcp.sendall(sample)
                    tcp.shutdown(1)
                assert ended(tcp)


def check_connections_that_vanish(world):
    """Reset at once, after a few bytes, or in the middle of the handshake."""
    hello = client_hello(world)
    with witness(world):
        for number in range(200):
            tcp = world.tcp()
            tcp.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER: close with a reset
            tcp.sendall(hello[: (0, 3, 100, len(hello))[number % 4]])
            tcp.close()


def check_vanishing_with_requests_in_flight(world):
    key = world.rsa_keys()[0]
    digest = digest_of(3, b"message")
    with witness(world):
        for number in range(20):
            connection = world.connect()
            wire = b"".join(keyless.request(n, 0x05, digest, key.ski) for n in range(30))
            connection.send(wire)
            if number % 2:
                connection.socket.setsockopt(1, 13, struct.pack("ii", 1, 0))
            connection.socket.close()


def check_bytes_instead_of_records(world):
    """After the handshake, what is not TLS ends the connection."""
    chance = random.Random(2)
    with witness(world):
        for sample in (
            chance.randbytes(64),
            b"\x17\x03\x03\x00\x20" + chance.randbytes(32),
            b"\x17\x03\x03\xff\xff" + chance.randbytes(70000),
            b"\x16\x03\x03\x00\x04\x00\x00\x00\x00",
        ):
            with world.connect() as connection:
                with contextlib.suppress(ConnectionError):
                    connection.socket.sendall(sample)
                    connection.socket.shutdown(1)
                assert ended(connection.socket)


def check_a_damaged_record(world):
    """One wrong bit, and nothing after it counts."""
    with world.connect() as connection:
        connection.seal(keyless.request(1, keyless.PING, b"damaged"))
        record = bytearray(connection.outgoing.read())
        record[-1] ^= 1
        connection.socket.sendall(record)
        assert ended(connection.socket)


def check_bytes_instead_of_frames(world):
    """After the handshake, inside TLS: an error of the protocol for each frame, or a close."""
    chance = random.Random(3)
    with witness(world):
        for number in range(60):
            length = chance.choice([1, 7, 8, 9, 30, 1024, 20000])
            data = bytearray(chance.randbytes(length))
            if number % 2 and length > 4:
                # A header the server takes, over a body of noise.
                data[0:4] = struct.pack(">BBH", 1, 0, min(length - 8, 65535) if length > 8 else 0)
            with world.connect() as connection:
                connection.send(bytes(data))
                connection.finish_tls()
                with contextlib.suppress(keyless.Closed):
                    while True:
                        answer = connection.answer()
                        assert answer.opcode in (keyless.ERROR, keyless.PONG, keyless.REPLY)


def check_every_cut_and_flip_of_a_request(world):
    """Each request one step from a good one is answered, with its own id, on one connection."""
    key = world.ec_keys()[0]
    good = keyless.item(keyless.OPCODE, b"\x15") + keyless.item(keyless.SKI, key.ski)
    good += keyless.item(keyless.PAYLOAD, digest_of(3, b"message"))
    chance = random.Random(4)
    mutants = [good[:length] for length in range(len(good))]
    for at in range(len(good)):
        mutants.append(good[:at] + bytes([good[at] ^ 1 << chance.randrange(8)]) + good[at + 1 :])
    connection = world.connect()
    try:
        for number, items in enumerate(mutants):
            answer = connection.ask_items(items)
            assert answer.opcode in (keyless.ERROR, keyless.REPLY, keyless.PONG), number
            if answer.error in (keyless.FORMAT, keyless.VERSION_MISMATCH):
                connection.expect_close()
                connection.socket.close()
                connection = world.connect()
        connection.expect_alive()
    finally:
        connection.socket.close()
