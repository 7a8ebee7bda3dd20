"""Where this server differs from the stock one on purpose: one check per documented case."""

import os

import keyless
from keys import HASHES, digest_of
from world import (
    DECRYPT_ONLY,
    NO_GRANT,
    ONE_KEY,
    SIGN_ONLY,
    TO_SEAL,
    UNKNOWN,
    expect_error,
    expect_output,
)

NOBODY = bytes(range(1, 21))
"""The SKI of no key."""


def first(keys, name):
    return next(key for key in keys if key.name == name)


def check_key_type_does_not_match_the_opcode(world):
    """Error 1. The stock server signs anyway."""
    rsa, ec, ed = world.rsa_keys()[0], world.ec_keys()[0], world.ed25519_keys()[0]
    rsa_signs, pss_signs = range(0x02, 0x08), range(0x35, 0x38)
    ec_signs = range(0x12, 0x18)
    with world.connect() as connection:
        for key, opcodes in (
            (rsa, [*ec_signs]),
            (ec, [*rsa_signs, *pss_signs, 0x18]),
            (ed, [*rsa_signs, *pss_signs, *ec_signs]),
        ):
            for opcode in opcodes:
                index = {0x35: 3, 0x36: 4, 0x37: 5}.get(opcode, (opcode & 0xF) - 2)
                payload = digest_of(index, b"message") if opcode != 0x18 else b"message"
                expect_error(connection.ask(opcode, payload, key.ski), keyless.CRYPTO_FAILURE)
        connection.expect_alive()


def check_hash_of_the_wrong_length(world):
    """Error 1, for ECDSA and for both RSA paddings."""
    with world.connect() as connection:
        for index, (_, size, _) in enumerate(HASHES):
            for length in (0, 1, size - 1, size + 1, 100):
                payload = bytes(length)
                ec, rsa = world.ec_keys()[0].ski, world.rsa_keys()[0].ski
                expect_error(connection.ask(0x12 + index, payload, ec), keyless.CRYPTO_FAILURE)
                expect_error(connection.ask(0x02 + index, payload, rsa), keyless.CRYPTO_FAILURE)
                if index >= 3:
                    answer = connection.ask(0x35 + index - 3, payload, rsa)
                    expect_error(answer, keyless.CRYPTO_FAILURE)


def check_ed25519_opcode_on_an_rsa_key(world):
    """Error 1. The stock server makes a raw PKCS#1 signature: an oracle."""
    with world.connect() as connection:
        for key in world.rsa_keys():
            for length in (0, 20, 32, 200):
                answer = connection.ask(0x18, bytes(length), key.ski)
                expect_error(answer, keyless.CRYPTO_FAILURE)


def check_missing_or_wrong_length_ski(world):
    """Error 2, and the digest tag is honoured as a fallback."""
    key = first(world.rsa_keys(), "rsa-2048")
    digest = digest_of(3, b"message")
    with world.connect() as connection:
        expect_error(connection.ask(0x05, digest), keyless.KEY_NOT_FOUND)
        for ski in (b"", key.ski[:19], key.ski + b"\0", key.ski * 2):
            expect_error(connection.ask(0x05, digest, ski), keyless.KEY_NOT_FOUND)
            more = keyless.item(keyless.DIGEST, key.modulus_digest)
            signature = expect_output(connection.ask(0x05, digest, ski, more))
            key.verify_pkcs1(signature, digest, HASHES[3][2])
        for value in (b"", key.modulus_digest[:31], key.modulus_digest + b"\0", bytes(32)):
            more = keyless.item(keyless.DIGEST, value)
            expect_error(connection.ask(0x05, digest, more=more), keyless.KEY_NOT_FOUND)
        expect_error(connection.ask(0x05, digest, NOBODY), keyless.KEY_NOT_FOUND)


def in_flight(connection, key, count=40):
    """Requests that take the server a while, and what must still come back for them."""
    digest = digest_of(3, b"in flight")
    wire = b"".join(keyless.request(1000 + n, 0x05, digest, key.ski) for n in range(count))

    def verify(answers):
        for number in range(count):
            signature = expect_output(answers.pop(1000 + number))
            key.verify_pkcs1(signature, digest, HASHES[3][2])

    return wire, count, verify


def check_malformed_items(world):
    """Error 7, replies in flight delivered, then the connection closes."""
    key = first(world.rsa_keys(), "rsa-2048")
    opcode = keyless.item(keyless.OPCODE, bytes([keyless.PING]))
    for name, items in {
        "past the end": opcode + b"\x12\x00\x05abcd",
        "far past the end": b"\x12\xff\xff",
        "payload twice": opcode + keyless.item(keyless.PAYLOAD, b"a") * 2,
        "opcode twice": opcode * 2,
        "two-byte opcode": keyless.item(keyless.OPCODE, b"\0\xf1"),
    }.items():
        with world.connect() as connection:
            wire, count, verify = in_flight(connection, key)
            # What follows the malformed frame is not answered.
            after = keyless.request(2000, keyless.PING, b"after")
            connection.send(wire + keyless.frame(77, items) + after)
            answers = connection.answers(count + 1)
            expect_error(answers.pop(77), keyless.FORMAT)
            verify(answers)
            assert not answers, name
            connection.expect_close()


def check_major_version_other_than_1(world):
    """Error 4, replies in flight delivered, then the connection closes."""
    key = first(world.rsa_keys(), "rsa-2048")
    items = keyless.item(keyless.OPCODE, bytes([keyless.PING]))
    for major in (0, 2, 255):
        with world.connect() as connection:
            wire, count, verify = in_flight(connection, key)
            connection.send(wire + keyless.frame(78, items, major=major))
            answers = connection.answers(count + 1)
            expect_error(answers.pop(78), keyless.VERSION_MISMATCH)
            verify(answers)
            connection.expect_close()
    with world.connect() as connection:
        answer = connection.ask_items(items, minor=9)
        assert answer.opcode == keyless.PONG, "the minor version does not matter"


def check_rsa_input_not_below_the_modulus_or_of_another_length(world):
    """Error 1."""
    with world.connect() as connection:
        for key in world.rsa_keys():
            fine = key.raw_encrypt(12345)
            for number in (key.n, key.n + 1, 256**key.size - 1):
                ciphertext = number.to_bytes(key.size, "big")
                for opcode in (0x01, 0x08):
                    answer = connection.ask(opcode, ciphertext, key.ski)
                    expect_error(answer, keyless.CRYPTO_FAILURE)
            for ciphertext in (b"", fine[:-1], b"\0" + fine, fine + b"\0", fine * 2, b"\x02"):
                for opcode in (0x01, 0x08):
                    answer = connection.ask(opcode, ciphertext, key.ski)
                    expect_error(answer, keyless.CRYPTO_FAILURE)


def check_request_context(world):
    """`null` is answered like any other, and so is what is no JSON at all."""
    key = world.ec_keys()[0]
    contexts = (b"null", b"", b'{"request_id": "7"}', b"{", b"\xff\xfe", b'{"request_id": null}')
    with world.connect() as connection:
        for context in contexts:
            digest = digest_of(3, context)
            more = keyless.item(keyless.CONTEXT, context)
            signature = expect_output(connection.ask(0x15, digest, key.ski, more))
            key.verify_ecdsa(signature, digest, HASHES[3][2])
        for context in contexts:
            more = keyless.item(keyless.CONTEXT, context)
            assert connection.ask(keyless.PING, more=more).opcode == keyless.PONG


def client_hello(world):
    """The first bytes of a handshake."""
    import ssl

    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = world.context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake without a server")


def check_what_a_client_may_not_do(world):
    """The generic code, the same bytes as for a key that does not exist."""
    digest = digest_of(3, b"message")
    p256, rsa = first(world.ec_keys(), "p-256"), first(world.rsa_keys(), "rsa-2048")

    def refused_like_nobody(connection, opcode, payload, ski):
        wire = []
        for asked in (ski, NOBODY):
            connection.send(keyless.request(5, opcode, payload, asked))
            header = connection._take(8)
            wire.append(header + connection._take(int.from_bytes(header[2:4], "big")))
        assert wire[0] == wire[1], "a refusal tells whether the key exists"
        answer = keyless.parse_answer(wire[0][:8], wire[0][8:])
        expect_error(answer, keyless.KEY_NOT_FOUND)

    for client in (NO_GRANT, UNKNOWN):
        with world.connect(client) as connection:
            refused_like_nobody(connection, 0x15, digest, p256.ski)
            refused_like_nobody(connection, 0x05, digest, rsa.ski)
            refused_like_nobody(connection, 0x01, rsa.raw_encrypt(2), rsa.ski)
            # Also when the operation could not have worked.
            refused_like_nobody(connection, 0x15, b"short", p256.ski)
            refused_like_nobody(connection, 0x15, digest, rsa.ski)
            connection.expect_alive()
    with world.connect(ONE_KEY) as connection:
        signature = expect_output(connection.ask(0x15, digest, p256.ski))
        p256.verify_ecdsa(signature, digest, HASHES[3][2])
        refused_like_nobody(connection, 0x05, digest, rsa.ski)


def check_decrypting_needs_its_own_right(world):
    """0x01 and 0x08 are off unless granted; and that right does not sign."""
    rsa = first(world.rsa_keys(), "rsa-2048")
    digest = digest_of(3, b"message")
    with world.connect(SIGN_ONLY) as connection:
        for opcode in (0x01, 0x08):
            answer = connection.ask(opcode, rsa.raw_encrypt(2), rsa.ski)
            expect_error(answer, keyless.KEY_NOT_FOUND)
        signature = expect_output(connection.ask(0x05, digest, rsa.ski))
        rsa.verify_pkcs1(signature, digest, HASHES[3][2])
    with world.connect(DECRYPT_ONLY) as connection:
        for opcode in (0x01, 0x08):
            block = expect_output(connection.ask(opcode, rsa.raw_encrypt(2), rsa.ski))
            assert block == (2).to_bytes(rsa.size, "big")
        for opcode in (0x05, 0x35):
            answer = connection.ask(opcode, digest, rsa.ski)
            expect_error(answer, keyless.KEY_NOT_FOUND)


def check_seal_and_unseal(world):
    """For whom it is granted, a ticket is sealed and opened; nobody else learns anything."""
    key = world.ec_keys()[0]
    with world.connect(TO_SEAL) as connection:
        ticket = os.urandom(64)
        sealed = expect_output(connection.ask(0x21, ticket, key.ski))
        assert ticket not in sealed
        assert expect_output(connection.ask(0x22, sealed, key.ski)) == ticket
        old = sealed[:1] + (int.from_bytes(sealed[1:9], "big") - 3).to_bytes(8, "big") + sealed[9:]
        expect_error(connection.ask(0x22, old, key.ski), keyless.SEALING_KEY_EXPIRED)
        # Another version, and a head in order before what nobody has sealed.
        for forged in (b"\2" + os.urandom(63), sealed[:13] + os.urandom(51)):
            expect_error(connection.ask(0x22, forged, key.ski), keyless.CRYPTO_FAILURE)
        expect_error(connection.ask(0x21, ticket), keyless.KEY_NOT_FOUND)
    with world.connect() as connection:
        for opcode in (0x21, 0x22):
            for ski in (key.ski, None, os.urandom(20)):
                expect_error(connection.ask(opcode, os.urandom(64), ski), keyless.KEY_NOT_FOUND)


def check_errors_above_11_are_for_extended_clients(world):
    """A client that sends the extended item is served like any other."""
    key = world.ec_keys()[0]
    digest = digest_of(3, b"message")
    more = keyless.item(keyless.EXTENDED) + keyless.item(keyless.DEADLINE, (10**6).to_bytes(4, "big"))
    with world.connect() as connection:
        signature = expect_output(connection.ask(0x15, digest, key.ski, more))
        key.verify_ecdsa(signature, digest, HASHES[3][2])
        # What only the key server's own clients send is checked like the rest.
        connection.send(keyless.frame(9, keyless.item(keyless.OPCODE, b"\xf1") + b"\x30\x00\x01\x00"))
        expect_error(connection.answer(), keyless.FORMAT)
        connection.expect_close()
