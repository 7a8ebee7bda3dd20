"""A directory with everything a server under test needs: certificates, keys, a configuration."""

import os
import secrets
import socket
import subprocess
from pathlib import Path

# PKCS#8 around a SEC 1 private key without its public half, for P-256: the scalar follows. The
# server computes the public key, so that 100,000 files take seconds to write.
P256_PKCS8 = bytes.fromhex(
    "3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420"
)


class World:
    """Certificates by openssl, one client certificate per name, and key files."""

    def __init__(self, directory):
        self.directory = Path(directory)
        for name in ("pki", "keys"):
            (self.directory / name).mkdir(mode=0o700)
        self.clients = {}
        self._openssl(
            "req", "-x509", *self._new_key("ca"), "-subj", "/CN=perf CA",
            "-addext", "keyUsage=critical,keyCertSign",
        )
        self._issue("server", "DNS:localhost", "serverAuth")

    def path(self, name):
        return self.directory / name

    def add_client(self, name, allow=("sign-digest", "decrypt-raw")):
        """A certificate for a client, which may do this with every key."""
        self._issue(name, f"DNS:{name}", "clientAuth")
        self.clients[name] = allow

    def add_rsa_key(self, bits=2048):
        self._openssl(
            "genpkey", "-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_bits:{bits}",
            "-out", self.path(f"keys/rsa-{bits}.key"),
        )
        self.path(f"keys/rsa-{bits}.key").chmod(0o600)

    def add_p256_keys(self, count, directory="keys"):
        self.path(directory).mkdir(mode=0o700, exist_ok=True)
        for number in range(count):
            # Below the order of the group, which begins with 32 one bits.
            scalar = b"\x7f" + secrets.token_bytes(31)
            path = self.path(f"{directory}/p256-{number:06}.key")
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(P256_PKCS8 + scalar)

    def add_site(self, name, *kind):
        """A key that openssl makes, and `site.pem`, its certificate for localhost; for a module,
        also `sites/NAME.pem`. Returns the path of the key."""
        key = self.path(f"keys/{name}.key")
        self._openssl("genpkey", *kind, "-out", key)
        key.chmod(0o600)
        self.path("sites").mkdir(exist_ok=True)
        self._openssl(
            "req", "-x509", "-key", key, "-days", "2", "-subj", f"/CN={name}",
            "-CA", self.path("pki/ca.pem"), "-CAkey", self.path("pki/ca-key.pem"),
            "-addext", "basicConstraints=critical,CA:FALSE",
            "-addext", "subjectAltName=DNS:localhost", "-out", self.path(f"sites/{name}.pem"),
        )
        self.path("site.pem").write_bytes(self.path(f"sites/{name}.pem").read_bytes())
        return key

    def write_module_config(self, module, port, client="edge"):
        """`pkcs11.toml` and `openssl.cnf` of a proxy whose keys are on the server at this port."""
        self.path("pkcs11.toml").write_text(
            f'servers = ["127.0.0.1:{port}"]\nserver_name = "localhost"\nca = "pki/ca.pem"\n'
            f'certificate = "pki/{client}.pem"\nprivate_key = "pki/{client}-key.pem"\n'
            'certificates = "sites"\n'
        )
        self.path("openssl.cnf").write_text(
            "openssl_conf = openssl_init\n[openssl_init]\nengines = engines\n[engines]\n"
            "pkcs11 = pkcs11_engine\n[pkcs11_engine]\nengine_id = pkcs11\n"
            f"MODULE_PATH = {module}\ninit = 0\n"
        )

    def write_config(self, backend="auto", keys="keys", extra=""):
        """Writes keyserver.toml on two free ports; returns its path and the ports."""
        port, metrics = free_port(), free_port()
        text = f"""
[listen]
address = "127.0.0.1:{port}"
[tls]
certificate = "pki/server.pem"
private_key = "pki/server-key.pem"
client_ca   = "pki/ca.pem"
[metrics]
address = "127.0.0.1:{metrics}"
[io]
backend = "{backend}"
[shutdown]
spread = "0s"
limit  = "1s"
[[keys]]
directory = "{keys}"
dual_use_until = 2099-12-31
{extra}
"""
        for name, allow in self.clients.items():
            rights = ", ".join(f'"{right}"' for right in allow)
            text += f"""
[[clients]]
name  = "{name}"
match = "dns:{name}"
[[clients.grants]]
keys  = ["*"]
allow = [{rights}]
{"expires = 2099-12-31" if "decrypt-raw" in allow else ""}
"""
        path = self.path("keyserver.toml")
        path.write_text(text)
        return path, port, metrics

    def _new_key(self, name):
        return (
            "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-keyout", self.path(f"pki/{name}-key.pem"), "-out", self.path(f"pki/{name}.pem"),
        )

    def _issue(self, name, alternative_name, usage):
        self._openssl(
            "req", "-x509", *self._new_key(name), "-subj", f"/CN={name}",
            "-CA", self.path("pki/ca.pem"), "-CAkey", self.path("pki/ca-key.pem"),
            "-addext", "basicConstraints=critical,CA:FALSE",
            "-addext", f"subjectAltName={alternative_name}",
            "-addext", f"extendedKeyUsage={usage}",
        )
        self.path(f"pki/{name}-key.pem").chmod(0o600)

    @staticmethod
    def _openssl(*arguments):
        done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"openssl {arguments[0]}: {done.stderr}")


def free_port():
    """A port below the range for outgoing connections, so that the kernel gives it to nobody."""
    for port in iter(lambda: 10_000 + secrets.randbelow(20_000), None):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
