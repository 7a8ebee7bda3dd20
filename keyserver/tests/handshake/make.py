"""Makes the vectors of this folder: handshakes between `openssl s_server` and `openssl s_client`.

    python3 keyserver/tests/handshake/make.py

Each file holds one handshake as s_client printed it (`-msg`): what the server signed, or the
messages it made that from, and its signature. The keys are those of accel/tests/keys.
"""

import pathlib
import re
import socket
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).parent
KEYS = HERE.parents[2] / "accel" / "tests" / "keys"

# Name, key, options of the server, options of the client.
TLS13 = [
    ("p256", "p256", ["-alpn", "h2"], ["-servername", "shop.example", "-alpn", "h2,http/1.1"]),
    ("p256-retry", "p256", ["-groups", "X25519"],
     ["-servername", "shop.example", "-groups", "P-256:X25519"]),
    ("p256-retry-sha256", "p256", ["-groups", "P-384"],
     ["-noservername", "-groups", "X25519:P-384", "-ciphersuites", "TLS_AES_128_GCM_SHA256"]),
    ("p384-sha256", "p384", [],
     ["-servername", "Shop.Example", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"]),
    ("rsa2048-certificate-request", "rsa2048", ["-verify", "1"], ["-servername", "shop.example"]),
    ("ed25519", "ed25519", ["-alpn", "http/1.1"], ["-noservername", "-alpn", "http/1.1"]),
]
TLS12 = [
    ("tls12-p256-x25519", "p256", [], ["-groups", "X25519:P-256"]),
    ("tls12-p384-p384", "p384", [], ["-groups", "P-384"]),
    ("tls12-rsa2048-pss-p256", "rsa2048", [], ["-groups", "P-256"]),
    ("tls12-rsa2048-pkcs1-x25519", "rsa2048", [],
     ["-groups", "X25519", "-sigalgs", "RSA+SHA384"]),
]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def certificate(key, directory):
    """A certificate of its own for the key."""
    private = KEYS / f"{key}.pkcs8.pem"
    public = directory / f"{key}.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-new", "-key", private, "-subj", "/CN=shop.example",
         "-days", "3650", "-out", public], check=True)
    return private, public


def handshake(version, key, server, client):
    """The messages of one handshake: (direction, name, bytes)."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        private, public = certificate(key, pathlib.Path(directory))
        serving = subprocess.Popen(
            ["openssl", "s_server", "-accept", str(port), "-key", private, "-cert", public,
             "-quiet", *server],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.5)
        asking = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-msg", version, *client],
            input=b"", capture_output=True, timeout=20)
        serving.kill()
    messages, taking = [], False
    for line in asking.stdout.decode().splitlines():
        head = re.match(r"(>>>|<<<) .*, Handshake \[length \w+\], (\w+)", line)
        if head:
            messages.append((head[1], head[2], bytearray()))
            taking = True
        elif taking and re.match(r"    [0-9a-f]{2}", line):
            messages[-1][2].extend(bytes.fromhex(line))
        else:
            taking = False
    return messages


def write(name, fields):
    version = subprocess.run(["openssl", "version"], capture_output=True, text=True).stdout
    lines = [f"# A handshake of {' '.join(version.split()[:2])}, by make.py."]
    lines += [f"{field} = {value}".rstrip() for field, value in fields]
    (HERE / f"{name}.txt").write_text("\n".join(lines) + "\n")


def tls13():
    for name, key, server, client in TLS13:
        messages = handshake("-tls1_3", key, server, client)
        kinds = [kind for _, kind, _ in messages]
        end = kinds.index("CertificateVerify")
        verify = bytes(messages[end][2])
        transcript = b"".join(bytes(body) for _, _, body in messages[:end])
        asked = client[client.index("-servername") + 1] if "-servername" in client else ""
        spoken = server[server.index("-alpn") + 1] if "-alpn" in server else ""
        assert (kinds.count("ClientHello") == 2) == ("retry" in name), kinds
        write(name, [
            ("key", key), ("server-name", asked), ("protocol", spoken),
            ("scheme", verify[4:6].hex()), ("signature", verify[8:].hex()),
            ("handshake", transcript.hex()),
        ])


def tls12():
    for name, key, server, client in TLS12:
        messages = {kind: bytes(body) for _, kind, body in handshake("-tls1_2", key, server, client)}
        exchange = messages["ServerKeyExchange"][4:]
        length = 4 + exchange[3]
        randoms = messages["ClientHello"][6:38] + messages["ServerHello"][6:38]
        write(name, [
            ("key", key), ("scheme", exchange[length:length + 2].hex()),
            ("signature", exchange[length + 4:].hex()),
            ("string", (randoms + exchange[:length]).hex()),
        ])


tls13()
tls12()
