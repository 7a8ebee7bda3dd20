"""A TLS 1.2 handshake with RSA key exchange between two programs of OpenSSL, recorded on its way."""

import hashlib
import hmac
import os
import socket
import subprocess
import tempfile
import threading
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PATIENCE = 30.0
HANDSHAKE, CHANGE_CIPHER_SPEC = 22, 20

NO_EXTENDED_MASTER_SECRET = """
openssl_conf = init
[init]
ssl_conf = ssl
[ssl]
system_default = default
[default]
Options = -ExtendedMasterSecret
"""


@dataclass
class Handshake:
    """What somebody on the wire has seen, and what OpenSSL says the secret was."""

    hash_name: str
    extended: bool
    client_random: bytes
    server_random: bytes
    ciphertext: bytes
    transcript: bytes
    finished_record: bytes
    master: bytes

    def session_hash(self):
        """The hash of ClientHello to ClientKeyExchange (RFC 7627, section 3)."""
        return hashlib.new(self.hash_name, self.transcript).digest()

    def check_finished(self, master):
        """Opens the client's Finished message with keys made of `master`, and checks what it says."""
        size = 16 if self.hash_name == "sha256" else 32
        seed = self.server_random + self.client_random
        block = prf(self.hash_name, master, b"key expansion", seed, 2 * size + 8)
        key, salt = block[:size], block[2 * size : 2 * size + 4]
        explicit, sealed = self.finished_record[:8], self.finished_record[8:]
        data = bytes(8) + bytes([HANDSHAKE, 3, 3]) + (len(sealed) - 16).to_bytes(2, "big")
        message = AESGCM(key).decrypt(salt + explicit, sealed, data)
        verify_data = prf(self.hash_name, master, b"client finished", self.session_hash(), 12)
        assert message == b"\x14\0\0\x0c" + verify_data


def prf(hash_name, secret, label, seed, length):
    """RFC 5246, section 5."""
    text, out = label + seed, b""
    a = hmac.digest(secret, text, hash_name)
    while len(out) < length:
        out += hmac.digest(secret, a + text, hash_name)
        a = hmac.digest(secret, a, hash_name)
    return out[:length]


def handshake(key_file, suite, extended):
    """Lets `openssl s_client` shake hands with `openssl s_server`, which holds the key."""
    with tempfile.TemporaryDirectory() as directory:
        name = lambda file: os.path.join(directory, file)
        environment = dict(os.environ)
        if not extended:
            with open(name("openssl.cnf"), "w", encoding="ascii") as file:
                file.write(NO_EXTENDED_MASTER_SECRET)
            environment["OPENSSL_CONF"] = name("openssl.cnf")
        request = ["req", "-x509", "-key", key_file, "-subj", "/CN=localhost", "-days", "2"]
        openssl([*request, "-out", name("cert.pem")], dict(os.environ))
        options = ["-tls1_2", "-cipher", suite]
        server = subprocess.Popen(
            ["openssl", "s_server", "-accept", "127.0.0.1:0", "-key", key_file]
            + ["-cert", name("cert.pem"), *options],
            env=environment,
            # It closes a connection when its input ends.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            wire = Wire(port_of(server))
            client = ["s_client", "-connect", f"127.0.0.1:{wire.port}", "-keylogfile", name("keys")]
            openssl([*client, "-brief", *options], environment)
            wire.wait()
        finally:
            server.kill()
            server.communicate()
        with open(name("keys"), encoding="ascii") as file:
            lines = dict(line.split()[1:] for line in file if line.startswith("CLIENT_RANDOM "))
    return parse(wire, "sha384" if suite.endswith("SHA384") else "sha256", extended, lines)


def openssl(arguments, environment):
    run = subprocess.run(
        ["openssl", *arguments], input=b"", env=environment, capture_output=True, timeout=PATIENCE
    )
    assert run.returncode == 0, run.stderr.decode()


def port_of(server):
    """The port that `openssl s_server` was given by the kernel, once it listens: it prints `ACCEPT 127.0.0.1:PORT`."""
    impatience = threading.Timer(PATIENCE, server.kill)
    impatience.start()
    try:
        for line in server.stdout:
            if line.startswith(b"ACCEPT "):
                return int(line.rsplit(b":", 1)[1])
    finally:
        impatience.cancel()
    raise AssertionError("openssl s_server does not listen")


class Wire:
    """One TCP connection passed on to `port`, with all that goes by."""

    def __init__(self, port):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.from_client, self.from_server = bytearray(), bytearray()
        self.thread = threading.Thread(target=self.run, args=(port,), daemon=True)
        self.thread.start()

    def run(self, port):
        client, _ = self.listener.accept()
        server = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        back = threading.Thread(target=pass_on, args=(server, client, self.from_server))
        back.start()
        pass_on(client, server, self.from_client)
        back.join()
        client.close()
        server.close()
        self.listener.close()

    def wait(self):
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "the connection does not end"


def pass_on(source, sink, seen):
    try:
        while data := source.recv(65536):
            seen += data
            sink.sendall(data)
    except OSError:
        pass
    try:
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def records(data):
    """Type and fragment of each record."""
    at = 0
    while at + 5 <= len(data):
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        yield data[at], bytes(data[at + 5 : at + 5 + length])
        at += 5 + length


def messages(data):
    """Handshake messages before ChangeCipherSpec, each as (type, whole message)."""
    plain = b""
    for kind, fragment in records(data):
        if kind == CHANGE_CIPHER_SPEC:
            break
        if kind == HANDSHAKE:
            plain += fragment
    while plain:
        length = 4 + int.from_bytes(plain[1:4], "big")
        yield plain[0], plain[:length]
        plain = plain[length:]


def parse(wire, hash_name, extended, secrets):
    client, server = list(messages(wire.from_client)), list(messages(wire.from_server))
    hello, key_exchange = client[0][1], client[-1][1]
    assert (client[0][0], client[-1][0], server[0][0]) == (1, 16, 2), "an RSA handshake"
    server = b"".join(message for kind, message in server if kind != 4)
    ciphertext = key_exchange[6:]
    assert len(ciphertext) == int.from_bytes(key_exchange[4:6], "big")
    sealed = [fragment for kind, fragment in records(wire.from_client) if kind == HANDSHAKE]
    client_random = hello[6:38]
    return Handshake(
        hash_name=hash_name,
        extended=extended,
        client_random=client_random,
        server_random=server[6:38],
        ciphertext=ciphertext,
        transcript=hello + server + key_exchange,
        finished_record=sealed[-1],
        master=bytes.fromhex(secrets[client_random.hex()]),
    )
