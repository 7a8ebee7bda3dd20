"""RSA key exchange: what each right gives, and what no right but the raw one gives."""

import os

import capture
import keyless
from keys import HASHES, digest_of
from world import COMPATIBLE, RAW, TO_MASTER, TO_PREMASTER, expect_error, expect_output

MASTER = 0x42
EVERYBODY = (TO_MASTER, TO_PREMASTER, COMPATIBLE, RAW)
VERSION = b"\3\3"
SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
"""DER before a SHA-256 value (RFC 8017, section 9.2, note 1)."""


def rsa(world):
    return world.keys["rsa-2048"]


def private_half(world):
    """The key's file for OpenSSL, which records handshakes with it. The server may have it in a token."""
    for name in ("keys", "elsewhere"):
        path = f"{world.directory}/{name}/rsa-2048.key"
        if os.path.exists(path):
            return path
    raise AssertionError("there is no rsa-2048.key")


def block(key, secret, fill=None):
    """EME-PKCS1-v1_5 of RFC 8017, section 7.2.1."""
    fill = fill or bytes(b % 255 + 1 for b in os.urandom(key.size - 3 - len(secret)))
    return b"\0\2" + fill + b"\0" + secret


def encrypt(key, encoded):
    return key.raw_encrypt(int.from_bytes(encoded, "big"))


def fresh(key):
    """A premaster secret and its ciphertext."""
    secret = VERSION + os.urandom(46)
    return secret, encrypt(key, block(key, secret))


def ask_premaster(connection, key, ciphertext):
    more = keyless.item(keyless.EXTENDED)
    return connection.ask(keyless.RSA_DECRYPT, VERSION + ciphertext, key.ski, more=more)


def ask_master(connection, key, ciphertext, seed, prf=4):
    payload = VERSION + bytes([prf, 0 if len(seed) == 64 else 1]) + seed + ciphertext
    return connection.ask(MASTER, payload, key.ski)


def ask_block(connection, key, ciphertext):
    return connection.ask(keyless.RSA_DECRYPT, ciphertext, key.ski)


# What the three ways of opening a ciphertext have in common: who may, and how it is asked.
WAYS = {
    TO_MASTER: lambda connection, key, c: ask_master(connection, key, c, bytes(64)),
    TO_PREMASTER: ask_premaster,
    COMPATIBLE: ask_block,
}


def expect_refused(answer):
    """The refusal that says nothing: "key not found", or "denied" for who understands it."""
    assert answer.opcode == keyless.ERROR, f"opcode {answer.opcode:#x} instead of a refusal"
    assert answer.error in (keyless.KEY_NOT_FOUND, keyless.DENIED), answer.error


def check_master_secret_of_a_recorded_handshake(world):
    """0x42 gives the secret that OpenSSL wrote down, and it opens the client's Finished."""
    key = rsa(world)
    for suite, prf in (("AES128-GCM-SHA256", 4), ("AES256-GCM-SHA384", 5)):
        for extended in (True, False):
            seen = capture.handshake(private_half(world), suite, extended)
            seed = seen.session_hash() if extended else seen.client_random + seen.server_random
            with world.connect(TO_MASTER) as connection:
                answer = ask_master(connection, key, seen.ciphertext, seed, prf)
                master = expect_output(answer)
            assert master == seen.master, (suite, extended)
            seen.check_finished(master)


def check_premaster_secret(world):
    """0x01 of a client of ours: version and 46 bytes, whatever version stands in the block."""
    key = rsa(world)
    with world.connect(TO_PREMASTER) as connection:
        for version in (VERSION, b"\3\1", b"\0\0"):
            secret = version + os.urandom(46)
            answer = ask_premaster(connection, key, encrypt(key, block(key, secret)))
            assert expect_output(answer) == VERSION + secret[2:]


def check_block_for_stock_clients(world):
    """0x01 of a stock client: the secret, in a padding that has nothing to do with the true one."""
    key = rsa(world)
    with world.connect(COMPATIBLE) as connection:
        secret = VERSION + os.urandom(46)
        first = block(key, secret)
        answer = expect_output(ask_block(connection, key, encrypt(key, first)))
        assert len(answer) == key.size and answer[:2] == b"\0\2" and 0 not in answer[2:-49]
        assert answer[-49:] == b"\0" + secret
        assert answer != first, "the true padding came out"


def check_every_bad_block_gets_one_answer(world):
    """No error, no length, no second answer tells a bad block from a good one."""
    key = rsa(world)
    secret = VERSION + os.urandom(46)
    good = block(key, secret)

    def spoilt(position, value):
        return good[:position] + bytes([value]) + good[position + 1 :]

    bad = {
        "leading byte": spoilt(0, 1),
        "block of a signature": spoilt(1, 1),
        "no filler": spoilt(2, 0),
        "short filler": spoilt(9, 0),
        "early separator": spoilt(key.size - 60, 0),
        "no separator": spoilt(key.size - 49, 7),
        "message of 47 bytes": block(key, os.urandom(47)),
        "message of 49 bytes": block(key, b"\1" + os.urandom(48)),
    }
    for client, ask in WAYS.items():
        with world.connect(client) as connection:
            lengths = {len(expect_output(ask(connection, key, encrypt(key, block(key, secret)))))}
            for what, encoded in bad.items():
                # Another ciphertext for each way: each may be asked for by one client only.
                ciphertext = another(key, encoded)
                answers = {expect_output(ask(connection, key, ciphertext)) for _ in range(2)}
                assert len(answers) == 1, f"{client}: {what} is answered at random"
                answer = answers.pop()
                lengths.add(len(answer))
                assert secret[2:] not in answer, f"{client}: {what} gave the secret"
            assert len(lengths) == 1, lengths


def another(key, encoded):
    """A ciphertext of a block that is spoilt in the same way, with other last bytes."""
    return encrypt(key, encoded[:-8] + os.urandom(8))


def check_out_of_range_is_error_1(world):
    """What everybody can see without the key: 0, 1, n-1, n, and wrong lengths."""
    key = rsa(world)
    numbers = [n.to_bytes(key.size, "big") for n in (0, 1, key.n - 1, key.n)]
    for client in (TO_MASTER, COMPATIBLE):
        with world.connect(client) as connection:
            for ciphertext in [*numbers, bytes(key.size - 1), bytes(key.size + 1), b""]:
                answer = WAYS[client](connection, key, ciphertext)
                expect_error(answer, keyless.CRYPTO_FAILURE)
            connection.expect_alive()


def check_opening_is_not_signing(world):
    """An encoded hash sent as a ciphertext: the raw right signs it, no other right does."""
    key = rsa(world)
    _, _, algorithm = HASHES[3]
    digest = digest_of(3, os.urandom(32))
    encoded = b"\0\1" + b"\xff" * (key.size - 54) + b"\0" + SHA256_INFO + digest
    with world.connect(RAW) as connection:
        forged = expect_output(ask_block(connection, key, encoded))
        key.verify_pkcs1(forged, digest, algorithm)
    for client, ask in WAYS.items():
        with world.connect(client) as connection:
            encoded = encoded[: -len(digest)] + digest_of(3, os.urandom(32))
            answer = expect_output(ask(connection, key, encoded))
            assert key.raw_encrypt(int.from_bytes(answer, "big")) != encoded, client


def check_a_recording_is_opened_once(world):
    """Three tries for the client that asked first; nobody else, and no other handshake."""
    key = rsa(world)
    for client, ask in WAYS.items():
        _, ciphertext = fresh(key)
        with world.connect(client) as first:
            answers = {expect_output(ask(first, key, ciphertext)) for _ in range(3)}
            assert len(answers) == 1
            expect_refused(ask(first, key, ciphertext))
            _, ciphertext = fresh(key)
            expect_output(ask(first, key, ciphertext))
        for other, ask_too in WAYS.items():
            if other != client:
                with world.connect(other) as connection:
                    expect_refused(ask_too(connection, key, ciphertext))
    _, ciphertext = fresh(key)
    with world.connect(TO_MASTER) as connection:
        expect_output(ask_master(connection, key, ciphertext, bytes(64)))
        answer = ask_master(connection, key, ciphertext, b"\1" + bytes(63))
        expect_refused(answer)


def check_a_right_is_not_another(world):
    """Each client may do what its right says and nothing else."""
    key = rsa(world)
    for client in EVERYBODY:
        with world.connect(client) as connection:
            for way, ask in WAYS.items():
                # The raw right answers what stock clients send, in its own way.
                if way != client and (client, way) != (RAW, COMPATIBLE):
                    _, ciphertext = fresh(key)
                    expect_refused(ask(connection, key, ciphertext))
            if client != RAW:
                _, ciphertext = fresh(key)
                answer = connection.ask(keyless.RSA_DECRYPT_RAW, ciphertext, key.ski)
                expect_refused(answer)
            answer = connection.ask(keyless.RSA_SIGN_SHA256, bytes(32), key.ski)
            expect_refused(answer)


def check_payloads_that_are_none(world):
    """0x42 with an unknown PRF, an unknown seed, and every truncation of its head: error 1."""
    key = rsa(world)
    _, ciphertext = fresh(key)
    good = VERSION + b"\4\0" + bytes(64) + ciphertext
    bad = [good[:cut] for cut in (1, 2, 3, 4, 5, 67, 68, 69, len(good) - 1)]
    bad += [VERSION + bytes([prf, kind]) + good[4:] for prf, kind in ((3, 0), (6, 0), (4, 2))]
    with world.connect(TO_MASTER) as connection:
        for payload in bad:
            expect_error(connection.ask(MASTER, payload, key.ski), keyless.CRYPTO_FAILURE)
        connection.expect_alive()
