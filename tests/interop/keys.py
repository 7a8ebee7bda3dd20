"""The private keys of the test, read independently of the server, and checks of its results."""

import hashlib
import os
import pathlib

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature

# By opcode offset within a family: name, bytes, and the algorithm. MD5-SHA1 is the concatenation
# that TLS 1.1 and older sign.
HASHES = [
    ("md5sha1", 36, None),
    ("sha1", 20, hashes.SHA1()),
    ("sha224", 28, hashes.SHA224()),
    ("sha256", 32, hashes.SHA256()),
    ("sha384", 48, hashes.SHA384()),
    ("sha512", 64, hashes.SHA512()),
]


class Key:
    """One key of the directory. A key that the server has in a token is there by its public half, as
    `NAME.pub`; no check needs more."""

    def __init__(self, path):
        self.name = path.stem
        if path.suffix == ".pub":
            self.public = serialization.load_der_public_key(path.read_bytes())
        else:
            self.public = serialization.load_der_private_key(path.read_bytes(), None).public_key()
        self.spki = self.public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.ski = ski_of_spki(self.spki)
        self.is_rsa = isinstance(self.public, rsa.RSAPublicKey)
        self.is_ec = isinstance(self.public, ec.EllipticCurvePublicKey)
        self.is_ed25519 = isinstance(self.public, ed25519.Ed25519PublicKey)
        if self.is_rsa:
            numbers = self.public.public_numbers()
            self.n, self.e = numbers.n, numbers.e
            self.size = (self.n.bit_length() + 7) // 8
            self.modulus_digest = hashlib.sha256(f"{self.n:X}".encode()).digest()

    def verify_pkcs1(self, signature, digest, algorithm):
        """RSASSA-PKCS1-v1_5 over a hash; raises when it is wrong."""
        assert len(signature) == self.size
        if algorithm is not None:
            self.public.verify(signature, digest, padding.PKCS1v15(), Prehashed(algorithm))
            return
        block = pow(int.from_bytes(signature, "big"), self.e, self.n).to_bytes(self.size, "big")
        fill = self.size - len(digest) - 3
        assert block == b"\0\x01" + b"\xff" * fill + b"\0" + digest, "not the padded hash"

    def verify_pss(self, signature, digest, algorithm):
        """RSASSA-PSS with salt and MGF1 of the same hash."""
        assert len(signature) == self.size
        scheme = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
        self.public.verify(signature, digest, scheme, Prehashed(algorithm))

    def verify_ecdsa(self, signature, digest, algorithm):
        """ECDSA, DER, over a hash."""
        if algorithm is not None:
            self.public.verify(signature, digest, ec.ECDSA(Prehashed(algorithm)))
            return
        verify_ecdsa_by_hand(self.public, signature, digest)

    def verify_ed25519(self, signature, message):
        """Ed25519 over a message."""
        self.public.verify(signature, message)

    def raw_encrypt(self, number):
        """number^e mod n, k bytes."""
        return pow(number, self.e, self.n).to_bytes(self.size, "big")


def verify_ecdsa_by_hand(public, signature, digest):
    """The equation of FIPS 186-5, 6.4.2, for MD5-SHA1: `cryptography` has no name for a hash of 36
    bytes. Of a hash longer than the group order, the leftmost bits count."""
    curve = CURVES[public.curve.name]
    r, s = decode_dss_signature(signature)
    assert 0 < r < curve.n and 0 < s < curve.n
    z = int.from_bytes(digest, "big")
    surplus = len(digest) * 8 - curve.n.bit_length()
    if surplus > 0:
        z >>= surplus
    numbers = public.public_numbers()
    w = pow(s, -1, curve.n)
    point = curve.add(
        curve.multiply(z * w % curve.n, (curve.gx, curve.gy)),
        curve.multiply(r * w % curve.n, (numbers.x, numbers.y)),
    )
    if point is None or point[0] % curve.n != r:
        raise InvalidSignature


class Curve:
    """y^2 = x^3 - 3x + b over a prime field, affine: slow and plain."""

    def __init__(self, p, n, gx, gy):
        self.p, self.n, self.gx, self.gy = p, n, gx, gy

    def add(self, a, b):
        if a is None or b is None:
            return a or b
        (x1, y1), (x2, y2) = a, b
        if x1 == x2 and (y1 + y2) % self.p == 0:
            return None
        if a == b:
            slope = (3 * x1 * x1 - 3) * pow(2 * y1, -1, self.p)
        else:
            slope = (y2 - y1) * pow(x2 - x1, -1, self.p)
        x = (slope * slope - x1 - x2) % self.p
        return x, (slope * (x1 - x) - y1) % self.p

    def multiply(self, scalar, point):
        result = None
        while scalar:
            if scalar & 1:
                result = self.add(result, point)
            point = self.add(point, point)
            scalar >>= 1
        return result


def generator(curve, p, n):
    """The base point, from the library's own public key of the private key 1."""
    numbers = ec.derive_private_key(1, curve).public_key().public_numbers()
    return Curve(p, n, numbers.x, numbers.y)


# SEC 2, sections 2.4.2, 2.5.1 and 2.6.1.
CURVES = {
    "secp256r1": generator(
        ec.SECP256R1(),
        2**256 - 2**224 + 2**192 + 2**96 - 1,
        0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    ),
    "secp384r1": generator(
        ec.SECP384R1(),
        2**384 - 2**128 - 2**96 + 2**32 - 1,
        int(
            "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"
            "C7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973",
            16,
        ),
    ),
    "secp521r1": generator(
        ec.SECP521R1(),
        2**521 - 1,
        int(
            "01FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFA"
            "51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409",
            16,
        ),
    ),
}


def ski_of_spki(spki):
    """SHA-1 of the bits of the subjectPublicKey (RFC 5280, 4.2.1.2, method 1)."""

    def element(data):
        """The contents of the first DER element, and what follows it."""
        length, start = data[1], 2
        if length & 0x80:
            count = length & 0x7F
            length, start = int.from_bytes(data[2 : 2 + count], "big"), 2 + count
        return data[start : start + length], data[start + length :]

    contents, _ = element(spki)
    _algorithm, rest = element(contents)
    bits, _ = element(rest)
    assert bits[0] == 0, "unused bits in the key"
    return hashlib.sha1(bits[1:]).digest()


def digest_of(opcode_index, message):
    """The hash of `message` with the algorithm at this place in HASHES."""
    name = HASHES[opcode_index][0]
    if name == "md5sha1":
        return hashlib.md5(message).digest() + hashlib.sha1(message).digest()
    return hashlib.new(name, message).digest()


def load(directory):
    """The keys of `directory/keys` that this Python can read, by name."""
    keys = {}
    for path in sorted(pathlib.Path(directory, "keys").glob("*.[kp][eu][yb]")):
        try:
            keys[path.stem] = Key(path)
        except (UnsupportedAlgorithm, ValueError):
            assert path.stem.startswith("ml-dsa"), f"{path} should be readable"
    assert keys, f"no keys in {os.path.join(directory, 'keys')}"
    return keys
