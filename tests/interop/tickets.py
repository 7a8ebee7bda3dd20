"""Session tickets: the keys that edges get, and blobs that the server seals, derived again from the master's file."""

import hashlib
import hmac
import os
import struct
import time

import keyless
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from world import TO_SEAL, TO_TICKETS, expect_error, expect_output

EPOCH = 3600
EDGE, SERVER = 1, 2
"""What a key is for."""


def derive(world, purpose, epoch, ski, generation=0):
    """Name and key: HKDF-SHA-256 of RFC 5869, by hand."""
    head, digits = open(f"{world.directory}/tickets.master").read().split()[-2:]
    assert head == "1"
    prk = hmac.digest(b"keyserver session tickets 1", bytes.fromhex(digits), "sha256")
    info = struct.pack(">BQI", purpose, epoch, generation) + ski
    first = hmac.digest(prk, info + b"\1", "sha256")
    second = hmac.digest(prk, first + info + b"\2", "sha256")
    derived = (first + second)[:48]
    return derived[:16], derived[16:]


def ask_keys(connection, ski):
    """The answer to 0x46, taken apart: the server's time, and name and key by epoch."""
    answer = expect_output(connection.ask(keyless.TICKET_KEYS, b"", ski))
    now, seconds, count = struct.unpack(">QIB", answer[:13])
    assert seconds == EPOCH and len(answer) == 13 + 56 * count
    entries = [answer[at : at + 56] for at in range(13, len(answer), 56)]
    return now, [(int.from_bytes(e[:8], "big"), e[8:24], e[24:]) for e in entries]


def check_edges_get_what_the_master_gives(world):
    """Four epochs, the next one first, each derived as documented."""
    with world.connect(TO_TICKETS) as connection:
        for key in world.keys.values():
            now, entries = ask_keys(connection, key.ski)
            assert abs(now - time.time()) < 60
            current = now // EPOCH
            assert [epoch for epoch, *_ in entries] == [current + 1, current, current - 1, current - 2]
            for epoch, name, secret in entries:
                assert (name, secret) == derive(world, EDGE, epoch, key.ski)
        expect_error(connection.ask(keyless.TICKET_KEYS, b"x", key.ski), keyless.CRYPTO_FAILURE)


def check_sealed_blobs_are_what_the_page_says(world):
    """A blob opens with the derived key, and one made by hand is opened by the server."""
    key = next(iter(world.keys.values()))
    with world.connect(TO_SEAL) as connection:
        for length in (1, 100, 16384):
            ticket = os.urandom(length)
            blob = expect_output(connection.ask(keyless.SEAL, ticket, key.ski))
            version, epoch, generation = struct.unpack(">BQI", blob[:13])
            assert (version, generation) == (1, 0)
            _, secret = derive(world, SERVER, epoch, key.ski)
            assert AESGCM(secret).decrypt(blob[13:25], blob[25:], blob[:13]) == ticket
        # The oldest epoch that still counts must do so until the server has been asked about it.
        if time.time() % EPOCH > EPOCH - 30:
            time.sleep(31)
        now = int(time.time()) // EPOCH
        for epoch, code in ((now, None), (now - 2, None), (now - 4, keyless.SEALING_KEY_EXPIRED), (now + 3, keyless.SEALING_KEY_EXPIRED)):
            head, nonce = struct.pack(">BQI", 1, epoch, 0), os.urandom(12)
            _, secret = derive(world, SERVER, epoch, key.ski)
            blob = head + nonce + AESGCM(secret).encrypt(nonce, b"by hand", head)
            answer = connection.ask(keyless.UNSEAL, blob, key.ski)
            if code is None:
                assert expect_output(answer) == b"by hand"
            else:
                expect_error(answer, code)
        # What edges get does not open, and neither does what was sealed for another key.
        head, nonce = struct.pack(">BQI", 1, now, 0), os.urandom(12)
        _, secret = derive(world, EDGE, now, key.ski)
        for blob in (
            head + nonce + AESGCM(secret).encrypt(nonce, b"x", head),
            b"\2" + blob[1:],
            b"",
            os.urandom(41),
            bytes(70),
        ):
            answer = connection.ask(keyless.UNSEAL, blob, key.ski)
            assert answer.opcode == keyless.ERROR
            assert answer.error in (keyless.CRYPTO_FAILURE, keyless.SEALING_KEY_EXPIRED)
        other = list(world.keys.values())[1]
        sealed = expect_output(connection.ask(keyless.SEAL, b"x", key.ski))
        expect_error(connection.ask(keyless.UNSEAL, sealed, other.ski), keyless.CRYPTO_FAILURE)
        for ticket in (b"", bytes(16385)):
            expect_error(connection.ask(keyless.SEAL, ticket, key.ski), keyless.CRYPTO_FAILURE)


def check_each_right_gives_its_own(world):
    """Who may have keys may not seal, and the reverse; a digest in place of the SKI finds the key."""
    key = next(key for key in world.keys.values() if key.is_rsa)
    unknown = hashlib.sha1(b"nobody's").digest()
    with world.connect(TO_TICKETS) as connection:
        for opcode in (keyless.SEAL, keyless.UNSEAL):
            expect_error(connection.ask(opcode, b"x" * 64, key.ski), keyless.KEY_NOT_FOUND)
        for ski in (None, unknown):
            expect_error(connection.ask(keyless.TICKET_KEYS, b"", ski), keyless.KEY_NOT_FOUND)
        digest = keyless.item(keyless.DIGEST, key.modulus_digest)
        assert expect_output(connection.ask(keyless.TICKET_KEYS, b"", more=digest))
    with world.connect(TO_SEAL) as connection:
        expect_error(connection.ask(keyless.TICKET_KEYS, b"", key.ski), keyless.KEY_NOT_FOUND)
