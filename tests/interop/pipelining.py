"""Thousands of requests in flight on one connection, all matched by id and verified."""

import os
import pathlib
import random

import keyless
from keys import HASHES, digest_of
from world import expect_output

PINGS, SIGNS = 3000, 500


def sign_jobs(world, count, chance):
    """Requests for mixed signatures, each with the check of its answer."""
    signers = [
        lambda key, i: (0x02 + i, lambda s, d: key.verify_pkcs1(s, d, HASHES[i][2]), i),
        lambda key, i: (0x12 + i, lambda s, d: key.verify_ecdsa(s, d, HASHES[i][2]), i),
        lambda key, i: (0x18, key.verify_ed25519, i),
    ]
    light = [key for key in world.rsa_keys() if key.size <= 256]
    groups = [(signers[0], light), (signers[1], world.ec_keys()), (signers[2], world.ed25519_keys())]
    for number in range(count):
        signer, keys = groups[number % len(groups)]
        key = chance.choice(keys)
        opcode, verify, index = signer(key, chance.choice([3, 4, 5]))
        digest = digest_of(index, os.urandom(16))
        yield (opcode, digest, key.ski, lambda s, verify=verify, digest=digest: verify(s, digest))


def send_all(connection, wire):
    """Sends everything while reading what comes back, as a pipelining client does."""
    received = []
    for start in range(0, len(wire), 16):
        for data in wire[start : start + 16]:
            connection.seal(data)
        connection.flush()
        while not connection.is_silent(0):
            received.append(connection.answer())
    while len(received) < len(wire):
        received.append(connection.answer())
    return received


def check_mixed_requests_in_flight(world):
    """3,000 pings and 500 signatures, shuffled, with ids in no order."""
    chance = random.Random(20)
    ids = chance.sample(range(2**32), PINGS + SIGNS)
    expected, wire = {}, []
    for _ in range(PINGS):
        request_id, payload = ids.pop(), os.urandom(chance.choice([0, 8, 40, 900]))
        expected[request_id] = (keyless.PONG, lambda got, payload=payload: compare(got, payload))
        wire.append(keyless.request(request_id, keyless.PING, payload))
    for opcode, digest, ski, verify in sign_jobs(world, SIGNS, chance):
        request_id = ids.pop()
        expected[request_id] = (keyless.REPLY, verify)
        wire.append(keyless.request(request_id, opcode, digest, ski))
    chance.shuffle(wire)
    with world.connect() as connection:
        for answer in send_all(connection, wire):
            opcode, verify = expected.pop(answer.id)
            assert answer.opcode == opcode, f"{answer.opcode:#x}, error {answer.error}"
            verify(answer.payload)
        assert not expected, f"{len(expected)} requests were never answered"
        connection.expect_alive()


def check_same_id_twice(world):
    """Ids are the client's affair: two requests with one id get two answers with it."""
    with world.connect() as connection:
        connection.send(b"".join(keyless.request(7, keyless.PING, p) for p in (b"a", b"b")))
        answers = [connection.answer(), connection.answer()]
        assert [answer.id for answer in answers] == [7, 7]
        assert {answer.payload for answer in answers} == {b"a", b"b"}


def check_a_client_that_does_not_read_waits_and_loses_nothing(world):
    """In-flight and output caps stop the server's reading; they never become errors."""
    key = next(key for key in world.ec_keys() if key.name == "p-256")
    # A thousand of these are more than the kernel holds for the server's side, both ways together.
    padding = bytes(min(65_000, kernel_buffers() // 1000 + 4096))
    digests = {request_id: os.urandom(32) for request_id in range(2000)}
    wire = [
        keyless.request(request_id, keyless.PING, padding)
        if request_id % 2
        else keyless.request(request_id, 0x15, digest, key.ski)
        for request_id, digest in digests.items()
    ]
    with keyless.Connection(world.address, world.context(), buffers=65536) as connection:
        for data in wire:
            connection.seal(data)
        sealed = memoryview(connection.outgoing.read())
        # Send until the server takes no more, without reading a byte.
        connection.socket.settimeout(0.5)
        sent = 0
        try:
            while sent < len(sealed):
                sent += connection.socket.send(sealed[sent : sent + 65536])
        except TimeoutError:
            pass
        assert sent < len(sealed), "nobody reads its replies, and the server goes on reading"
        received = []
        connection.socket.settimeout(keyless.PATIENCE)
        while sent < len(sealed):
            connection.socket.setblocking(False)
            try:
                sent += connection.socket.send(sealed[sent : sent + 65536])
            except BlockingIOError:
                pass
            while not connection.is_silent(0.001):
                received.append(connection.answer())
        while len(received) < len(wire):
            received.append(connection.answer())
        assert {answer.id for answer in received} == set(digests)
        for answer in received:
            if answer.id % 2:
                assert answer.opcode == keyless.PONG and answer.payload == padding
            else:
                key.verify_ecdsa(expect_output(answer), digests[answer.id], HASHES[3][2])
        connection.expect_alive()


def kernel_buffers():
    """The most bytes the kernel lets one TCP socket hold, received and to send: about 10 MB where
    nobody changed it."""
    return sum(
        int(pathlib.Path("/proc/sys/net/ipv4", name).read_text().split()[2])
        for name in ("tcp_rmem", "tcp_wmem")
    )


def compare(got, wanted):
    assert got == wanted, "another payload came back"
