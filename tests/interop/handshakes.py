"""0x40 and 0x41: what a TLS server signs, and nothing else."""

import hashlib
import os

import keyless
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from keys import HASHES, digest_of
from world import SIGN_ONLY, TLS_EDGE, expect_error, expect_output

# Schemes by number: the place of their hash in HASHES, and what verifies them.
PKCS1 = {0x0401: 3, 0x0501: 4, 0x0601: 5}
PSS = {0x0804: 3, 0x0805: 4, 0x0806: 5}
ECDSA = {0x0403: 3, 0x0503: 4}
ED25519 = 0x0807
ML_DSA = {"ml-dsa-44": (0x0904, 2420), "ml-dsa-65": (0x0905, 3309), "ml-dsa-87": (0x0906, 4627)}
SHA1 = (0x0201, 0x0203)


def tls13_string(hash_length=32):
    """RFC 8446, section 4.4.3."""
    return b" " * 64 + b"TLS 1.3, server CertificateVerify\0" + os.urandom(hash_length)


def points():
    """A public value of each curve of TLS 1.2, with its number."""
    raw = x25519.X25519PrivateKey.generate().public_key()
    yield 29, raw.public_bytes(Encoding.Raw, PublicFormat.Raw)
    for number, curve in ((23, ec.SECP256R1()), (24, ec.SECP384R1())):
        public = ec.generate_private_key(curve).public_key()
        yield number, public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def tls12_string(number, point):
    """RFC 8422, section 5.4."""
    head = b"\x03" + number.to_bytes(2, "big") + bytes([len(point)])
    # Nothing else that is signed begins like this. Of strings that begin at random, one in a hundred million looks like
    # an ASN.1 object, and is refused for that.
    return b"\x11" + os.urandom(63) + head + point


def sign(connection, opcode, scheme, string, ski):
    more = keyless.item(keyless.SCHEME, scheme.to_bytes(2, "big"))
    return connection.ask(opcode, string, ski, more)


def verify(key, scheme, signature, string):
    if scheme == ED25519:
        return key.verify_ed25519(signature, string)
    if scheme in PKCS1:
        index = PKCS1[scheme]
        return key.verify_pkcs1(signature, digest_of(index, string), HASHES[index][2])
    if scheme in PSS:
        index = PSS[scheme]
        return key.verify_pss(signature, digest_of(index, string), HASHES[index][2])
    index = ECDSA[scheme]
    return key.verify_ecdsa(signature, digest_of(index, string), HASHES[index][2])


def schemes13(key):
    """TLS 1.3 ties ECDSA to curves, and has no PKCS#1 v1.5."""
    ecdsa = {"p-256": [0x0403], "p-384": [0x0503], "p-521": []}
    return list(PSS) if key.is_rsa else [ED25519] if key.is_ed25519 else ecdsa[key.name]


def schemes12(key):
    return [*PKCS1, *PSS] if key.is_rsa else [] if key.is_ed25519 else list(ECDSA)


EVERY = [*PKCS1, *PSS, *ECDSA, ED25519, 0x0904, 0x0905, 0x0906, *SHA1, 0x0603, 0]


def check_tls13_signatures(world):
    """Every key with every scheme: a signature that verifies, or the generic refusal."""
    with world.connect(TLS_EDGE) as connection:
        for key in world.keys.values():
            if key.name in ML_DSA:
                continue
            for scheme in EVERY:
                for length in (32, 48):
                    string = tls13_string(length)
                    answer = sign(connection, 0x40, scheme, string, key.ski)
                    if scheme in schemes13(key):
                        verify(key, scheme, expect_output(answer), string)
                    else:
                        expect_error(answer, keyless.KEY_NOT_FOUND)


def check_tls12_signatures(world):
    """Likewise, over each curve."""
    with world.connect(TLS_EDGE) as connection:
        for key in world.keys.values():
            if key.name in ML_DSA:
                continue
            for number, point in points():
                for scheme in EVERY:
                    string = tls12_string(number, point)
                    answer = sign(connection, 0x41, scheme, string, key.ski)
                    if scheme in schemes12(key):
                        verify(key, scheme, expect_output(answer), string)
                    else:
                        expect_error(answer, keyless.KEY_NOT_FOUND)


def check_ml_dsa_signs_messages(world):
    """By length: this Python cannot verify ML-DSA. The Rust tests do."""
    import json

    with world.connect(TLS_EDGE) as connection:
        entries = json.loads(expect_output(connection.ask(keyless.KEY_LIST)))["keys"]
        for entry in entries:
            if entry["label"] in ML_DSA:
                scheme, length = ML_DSA[entry["label"]]
                assert entry["operations"] == ["tls13-sign"], entry
                answer = sign(connection, 0x40, scheme, tls13_string(), bytes.fromhex(entry["ski"]))
                assert len(expect_output(answer)) == length


def check_other_strings_are_refused(world):
    """One byte more or less, another prefix, another context, the other version."""
    key = world.keys["p-256"]
    good13, (number, point) = tls13_string(), next(points())
    good12 = tls12_string(number, point)
    with world.connect(TLS_EDGE) as connection:
        for bad in (
            b"", good13[:-1], good13 + b"\0", b"\t" + good13[1:], good12,
            good13.replace(b"server", b"client"),
            b" " * 64 + b"TLS, server delegated credentials\0" + os.urandom(32),
            hashlib.sha256(good13).digest(),
        ):
            expect_error(sign(connection, 0x40, 0x0403, bad, key.ski), keyless.KEY_NOT_FOUND)
        for bad in (
            b"", good12[:-1], good12 + b"\0", good13, good12[64:],
            good12[:64] + b"\x01" + good12[65:], tls12_string(25, os.urandom(133)),
            tls12_string(23, b"\x04" + os.urandom(64)), tls12_string(29, bytes(32)),
            # Also a whole ASN.1 object: version 0, an empty name, the rest one string.
            bytes.fromhex("3062020100" "3000" "045b") + good12[9:],
        ):
            expect_error(sign(connection, 0x41, 0x0403, bad, key.ski), keyless.KEY_NOT_FOUND)
        # The scheme is part of what is asked for; half of one is no frame at all.
        expect_error(connection.ask(0x40, good13, key.ski), keyless.KEY_NOT_FOUND)
        answer = connection.ask(0x40, good13, key.ski, keyless.item(keyless.SCHEME, b"\x04"))
        expect_error(answer, keyless.FORMAT)
        connection.expect_close()


def check_rights_are_separate(world):
    """The right to sign TLS signs no digest, and the right to sign digests signs no TLS."""
    key = world.keys["p-256"]
    with world.connect(TLS_EDGE) as connection:
        expect_error(connection.ask(0x15, bytes(32), key.ski), keyless.KEY_NOT_FOUND)
    with world.connect(SIGN_ONLY) as connection:
        answer = sign(connection, 0x40, 0x0403, tls13_string(), key.ski)
        expect_error(answer, keyless.KEY_NOT_FOUND)


def check_refusals_are_the_same_bytes(world):
    """An unknown key, no right, and another shape cannot be told apart."""
    key, string = world.keys["p-256"], tls13_string()
    more = keyless.item(keyless.SCHEME, b"\x04\x03")

    def wire(client, payload, ski):
        with world.connect(client) as connection:
            connection.send(keyless.request(7, 0x40, payload, ski, more))
            header = connection._take(8)
            return header + connection._take(int.from_bytes(header[2:4], "big"))

    answers = {
        wire(TLS_EDGE, string, hashlib.sha1(b"nobody").digest()),
        wire(SIGN_ONLY, string, key.ski),
        wire(TLS_EDGE, string[1:], key.ski),
        wire(TLS_EDGE, b"\x01" + string, key.ski),
    }
    assert len(answers) == 1, answers
