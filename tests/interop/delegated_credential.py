"""Verifies a delegated credential, from RFC 9345 and with the package `cryptography` alone:

    delegated_credential.py CERTIFICATE.pem CREDENTIAL LIFETIME KEY.pk8

CREDENTIAL is the DelegatedCredential structure (section 4), LIFETIME the seconds that it may have left at most, KEY.pk8 its
private key. Prints "verified" and the scheme, or fails.
"""

import datetime
import struct
import sys
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding

DELEGATION_USAGE = x509.ObjectIdentifier("1.3.6.1.4.1.44363.44")
CONTEXT = b"TLS, server delegated credentials"
WEEK = 7 * 24 * 3600
RSA_ENCRYPTION = bytes.fromhex("06092a864886f70d010101")


def vector(data, width):
    """A vector with a length of `width` bytes, and what follows it."""
    length = int.from_bytes(data[:width], "big")
    value, rest = data[width : width + length], data[width + length :]
    assert len(value) == length, "cut short"
    return value, rest


def check_certificate(certificate):
    """Section 4.2."""
    usage = certificate.extensions.get_extension_for_oid(DELEGATION_USAGE)
    assert not usage.critical and usage.value.value == b"\5\0", usage
    assert certificate.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature


def check_time(certificate, valid_time, lifetime, now):
    """Section 4.1.3: not past its end, which is at most a week away, and within the certificate."""
    # Older versions of the package know these two names only, without a time zone.
    begin, last = (
        time_of.replace(tzinfo=datetime.timezone.utc).timestamp()
        for time_of in (certificate.not_valid_before, certificate.not_valid_after)
    )
    end = begin + valid_time
    assert now < end <= now + min(lifetime, WEEK) + 60, (now, end)
    assert begin <= now and end <= last


def verify(public, scheme, signature, message):
    """A signature of TLS 1.3 (RFC 8446, section 4.2.3)."""
    if scheme in (0x0403, 0x0503):
        curve, hash_of = {0x0403: ("secp256r1", hashes.SHA256()), 0x0503: ("secp384r1", hashes.SHA384())}[scheme]
        assert public.curve.name == curve
        public.verify(signature, message, ec.ECDSA(hash_of))
    elif scheme in (0x0804, 0x0805, 0x0806):
        hash_of = {0x0804: hashes.SHA256(), 0x0805: hashes.SHA384(), 0x0806: hashes.SHA512()}[scheme]
        pss = padding.PSS(padding.MGF1(hash_of), hash_of.digest_size)
        public.verify(signature, message, pss, hash_of)
    else:
        assert scheme == 0x0807, hex(scheme)
        public.verify(signature, message)


def main(certificate_file, credential_file, lifetime, key_file):
    certificate = x509.load_pem_x509_certificate(open(certificate_file, "rb").read())
    bytes_of = open(credential_file, "rb").read()
    check_certificate(certificate)
    valid_time, algorithm = struct.unpack(">IH", bytes_of[:6])
    spki, rest = vector(bytes_of[6:], 3)
    signed = bytes_of[: len(bytes_of) - len(rest) + 2]
    scheme = int.from_bytes(rest[:2], "big")
    signature, rest = vector(rest[2:], 2)
    assert rest == b"", "bytes follow the credential"
    check_time(certificate, valid_time, int(lifetime), time.time())
    assert RSA_ENCRYPTION not in spki
    der = certificate.public_bytes(serialization.Encoding.DER)
    message = b" " * 64 + CONTEXT + b"\0" + der + signed
    verify(certificate.public_key(), scheme, signature, message)
    # The key that goes with it, and that it signs with the scheme that stands in the credential.
    key = serialization.load_der_private_key(open(key_file, "rb").read(), None)
    own = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert own == spki, "the credential is for another key"
    assert algorithm == 0x0403
    verify(key.public_key(), algorithm, key.sign(b"handshake", ec.ECDSA(hashes.SHA256())), b"handshake")
    # A verifier that cannot fail proves nothing.
    broken = message[:-1] + bytes([message[-1] ^ 1])
    try:
        verify(certificate.public_key(), scheme, signature, broken)
    except Exception as error:
        assert type(error).__name__ == "InvalidSignature", error
    else:
        raise AssertionError("a wrong signature was accepted")
    print(f"verified {scheme:04x}")


if __name__ == "__main__":
    main(*sys.argv[1:])
