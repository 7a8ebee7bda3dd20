"""Every operation of the protocol with every key it fits; every result verified here."""

import base64
import hashlib
import json
import os
import ssl

import keyless
from keys import HASHES, digest_of, ski_of_spki
from world import CIPHERS, NO_GRANT, ONE_KEY, expect_error, expect_output


def check_cipher_suite(world):
    """What stock clients offer is what the connection uses."""
    with world.connect() as connection:
        name, protocol, bits = connection.tls.cipher()
        if world.version == ssl.TLSVersion.TLSv1_2:
            assert (name, protocol) == (CIPHERS[world.certificate], "TLSv1.2"), (name, protocol)
        else:
            assert protocol == "TLSv1.3", protocol
        assert bits >= 128
        assert connection.tls.selected_alpn_protocol() is None
        connection.expect_alive()


def check_ping(world):
    """Any payload comes back, up to the longest that fits."""
    with world.connect() as connection:
        for length in (0, 1, 17, 1008, 1009, 1010, 1011, 1012, 16384, 65527, 65528):
            payload = os.urandom(length)
            answer = connection.ask(keyless.PING, payload)
            assert (answer.opcode, answer.payload) == (keyless.PONG, payload), length


def check_rsa_pkcs1_signatures(world):
    """0x02 to 0x07."""
    with world.connect() as connection:
        for key in world.rsa_keys():
            for index, (_, _, algorithm) in enumerate(HASHES):
                digest = digest_of(index, os.urandom(32))
                signature = expect_output(connection.ask(0x02 + index, digest, key.ski))
                key.verify_pkcs1(signature, digest, algorithm)


def check_rsa_pss_signatures(world):
    """0x35 to 0x37; the salt is random, so two signatures differ."""
    with world.connect() as connection:
        for key in world.rsa_keys():
            for opcode, index in ((0x35, 3), (0x36, 4), (0x37, 5)):
                digest = digest_of(index, os.urandom(32))
                both = [expect_output(connection.ask(opcode, digest, key.ski)) for _ in range(2)]
                assert both[0] != both[1], "the salt did not change"
                for signature in both:
                    key.verify_pss(signature, digest, HASHES[index][2])


def check_rsa_decrypt(world):
    """0x01 and 0x08: the raw block, padding kept, k bytes."""
    with world.connect() as connection:
        for key in world.rsa_keys():
            for opcode in (keyless.RSA_DECRYPT, keyless.RSA_DECRYPT_RAW):
                secret = b"\x03\x03" + os.urandom(46)
                fill = bytes(b % 255 + 1 for b in os.urandom(key.size - 51))
                block = b"\0\x02" + fill + b"\0" + secret
                ciphertext = key.raw_encrypt(int.from_bytes(block, "big"))
                assert expect_output(connection.ask(opcode, ciphertext, key.ski)) == block
                # A small number keeps its leading zeros.
                ciphertext = key.raw_encrypt(2)
                plain = expect_output(connection.ask(opcode, ciphertext, key.ski))
                assert plain == (2).to_bytes(key.size, "big")


def check_ecdsa_signatures(world):
    """0x12 to 0x17, every hash on every curve; the nonce is fresh, so two signatures differ."""
    with world.connect() as connection:
        for key in world.ec_keys():
            for index, (_, _, algorithm) in enumerate(HASHES):
                digest = digest_of(index, os.urandom(32))
                both = [
                    expect_output(connection.ask(0x12 + index, digest, key.ski)) for _ in range(2)
                ]
                assert both[0] != both[1], "the nonce did not change"
                for signature in both:
                    key.verify_ecdsa(signature, digest, algorithm)


def check_ecdsa_digest_of_zeros(world):
    """A hash of zeros is a hash like any other."""
    with world.connect() as connection:
        for key in world.ec_keys():
            signature = expect_output(connection.ask(0x15, bytes(32), key.ski))
            key.verify_ecdsa(signature, bytes(32), HASHES[3][2])


def check_ed25519_signatures(world):
    """0x18 signs the message itself, of any length."""
    with world.connect() as connection:
        for key in world.ed25519_keys():
            for length in (0, 1, 130, 5000):
                message = os.urandom(length)
                signature = expect_output(connection.ask(0x18, message, key.ski))
                assert len(signature) == 64
                key.verify_ed25519(signature, message)


def check_lookup_by_digest(world):
    """The old lookup key works where there is no SKI."""
    with world.connect() as connection:
        for key in world.rsa_keys():
            digest = digest_of(3, os.urandom(32))
            more = keyless.item(keyless.DIGEST, key.modulus_digest)
            signature = expect_output(connection.ask(0x05, digest, more=more))
            key.verify_pkcs1(signature, digest, HASHES[3][2])


def check_server_information(world):
    """0x47: one JSON document."""
    with world.connect(NO_GRANT) as connection:
        info = json.loads(expect_output(connection.ask(keyless.SERVER_INFO)))
        assert info["server"] == "keyserver" and info["version"], info
        assert info["protocol"].startswith("1"), info
        assert info["state"] == "serving", info
        assert info["limits"]["in_flight_per_connection"] >= 1, info
        assert info["limits"]["body_bytes"] == 65535, info
        served = {*range(0x01, 0x09), *range(0x12, 0x19), 0x35, 0x36, 0x37, 0x47, 0x48, 0xF1}
        served |= {0x21, 0x22, 0x40, 0x41, 0x42, 0x44, 0x46}
        assert set(info["opcodes"]) == served, sorted(map(hex, info["opcodes"]))


def all_keys(connection):
    """0x48, page by page."""
    entries, payload = [], b""
    while True:
        page = json.loads(expect_output(connection.ask(keyless.KEY_LIST, payload)))
        entries += page["keys"]
        if page.get("next") is None:
            return entries
        payload = page["next"].to_bytes(4, "big")


def check_key_list(world):
    """0x48: the keys of the directory, each with its SKI and public key."""
    with world.connect() as connection:
        entries = {entry["label"]: entry for entry in all_keys(connection)}
        assert set(entries) >= set(world.keys), sorted(entries)
        for label, entry in entries.items():
            spki = base64.b64decode(entry["spki"], validate=True)
            assert bytes.fromhex(entry["ski"]) == ski_of_spki(spki), label
            assert entry["key_type"] == label, entry
            if label in world.keys:
                assert spki == world.keys[label].spki, label
            rights = {"rsa": {"sign-digest", "decrypt-raw"}, "ml-": set()}
            expected = rights.get(label[:3], {"sign-digest"})
            assert set(entry["operations"]) == expected, entry
        for index in (10**6, 2**32 - 1):
            beyond = expect_output(connection.ask(keyless.KEY_LIST, index.to_bytes(4, "big")))
            assert json.loads(beyond)["keys"] == []
        for payload in (b"\0", bytes(3), bytes(5)):
            expect_error(connection.ask(keyless.KEY_LIST, payload), keyless.FORMAT)
        connection.expect_alive()


def check_key_list_shows_no_more_than_the_grants(world):
    """A client sees the keys it may use, and nothing of the others."""
    with world.connect(ONE_KEY) as connection:
        assert [entry["label"] for entry in all_keys(connection)] == ["p-256"]
    with world.connect(NO_GRANT) as connection:
        assert all_keys(connection) == []


def check_opcodes_not_served(world):
    """Error 5, whatever key they name, and the connection stays."""
    key = next(iter(world.keys.values()))
    with world.connect() as connection:
        for opcode in (0x23, 0x24, 0x43, 0x45, 0x00, 0x09, 0x11, 0x19, 0x99):
            for ski in (None, key.ski, hashlib.sha1(b"nobody's").digest()):
                expect_error(connection.ask(opcode, b"x" * 32, ski), keyless.BAD_OPCODE)
        connection.expect_alive()


def check_opcodes_of_answers(world):
    """Error 6 for what only a server sends, and the connection stays."""
    with world.connect() as connection:
        for opcode in (keyless.REPLY, keyless.PONG, keyless.ERROR):
            expect_error(connection.ask(opcode, b"\x01"), keyless.UNEXPECTED_OPCODE)
        connection.expect_alive()
