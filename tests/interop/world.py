"""What every check gets: where the server is, who may connect, and which keys it has."""

import socket
import ssl

import keyless
import keys

CIPHERS = {
    "ecdsa": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "rsa": "ECDHE-RSA-AES256-GCM-SHA384",
}
"""What stock clients offer over TLS 1.2, by the type of the server's certificate."""

# The clients of the configuration, and two it does not know.
SIGNER = "edge-1"
"""May sign digests with every key, and decrypt."""
SIGN_ONLY = "sign-only"
DECRYPT_ONLY = "decrypt-only"
ONE_KEY = "one-key"
"""May sign digests, with the key `p-256` only."""
TLS_EDGE = "tls-edge"
"""May have TLS 1.2 and 1.3 handshakes signed, with every key."""
# Each with one right to open ciphertexts.
TO_MASTER, TO_PREMASTER, COMPATIBLE, RAW = "master", "premaster", "compatible", "raw"
# Each with one right to resume sessions with.
TO_TICKETS, TO_SEAL = "tickets", "seal"
NO_GRANT = "no-grant"
UNKNOWN = "unknown"
"""Has a good certificate; the configuration does not name it."""


class World:
    """The server under test over one TLS version."""

    def __init__(self, directory, address, version, certificate):
        self.directory, self.address = directory, address
        self.version, self.certificate = version, certificate
        self.keys = keys.load(directory)

    def context(self, client=SIGNER, authority=None):
        ciphers = CIPHERS[self.certificate] if self.version == ssl.TLSVersion.TLSv1_2 else None
        return keyless.context(self.directory, client, self.version, ciphers, authority)

    def connect(self, client=SIGNER):
        """A connection after its handshake, as one of the clients."""
        return keyless.Connection(self.address, self.context(client))

    def tcp(self):
        """A TCP connection without TLS."""
        return socket.create_connection(self.address, timeout=keyless.PATIENCE)

    def rsa_keys(self):
        return [key for key in self.keys.values() if key.is_rsa]

    def ec_keys(self):
        return [key for key in self.keys.values() if key.is_ec]

    def ed25519_keys(self):
        return [key for key in self.keys.values() if key.is_ed25519]


def once(check):
    """Marks a check that one TLS version suffices for."""
    check.once = True
    return check


def expect_error(answer, code):
    """The answer is a refusal with this code."""
    assert answer.opcode == keyless.ERROR, f"opcode {answer.opcode:#x} instead of error {code}"
    assert answer.error == code, f"error {answer.error} instead of {code}"


def expect_output(answer):
    """The answer is an output; returns it."""
    assert answer.opcode == keyless.REPLY, f"error {answer.error} instead of an output"
    return answer.payload
