#!/usr/bin/env python3
"""Makes rsa_pkcs1_openssl.txt: PKCS#1 v1.5 signatures by OpenSSL's command line over random digests.

PKCS#1 v1.5 is deterministic, so these are what every backend must produce, byte for byte.
"""

import os
import secrets
import subprocess
import tempfile

LENGTHS = {"md5-sha1": 36, "sha1": 20, "sha224": 28, "sha256": 32, "sha384": 48, "sha512": 64}
KEYS = ["rsa2048.pkcs8.pem", "rsa2048-b.pkcs8.pem", "rsa2048-uneven.pkcs1.pem", "rsa2052.pkcs1.pem", "rsa2304.pkcs8.pem",
        "rsa3072.pkcs8.pem", "rsa4096.pkcs8.pem", "rsa8192.pkcs8.pem", "bad/exponent-3.pem"]

os.chdir(os.path.dirname(os.path.abspath(__file__)))
version = subprocess.run(["openssl", "version"], check=True, capture_output=True, text=True).stdout.split("(")[0].strip()
lines = [f"# PKCS#1 v1.5 signatures by {version}, made by make.py.", "# key | hash | digest | signature"]
for key in KEYS:
    for name, length in LENGTHS.items():
        digest = secrets.token_bytes(length)
        with tempfile.NamedTemporaryFile() as file:
            file.write(digest)
            file.flush()
            signature = subprocess.run(
                ["openssl", "pkeyutl", "-sign", "-inkey", f"../keys/{key}", "-pkeyopt", f"digest:{name}", "-in", file.name],
                check=True, capture_output=True).stdout
        lines.append(f"{key} | {name} | {digest.hex()} | {signature.hex()}")
with open("rsa_pkcs1_openssl.txt", "w") as file:
    file.write("\n".join(lines) + "\n")
