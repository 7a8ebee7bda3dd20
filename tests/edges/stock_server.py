"""A key server that knows the stock column of docs/protocol.md and nothing more.

usage: stock_server.py ADDRESS PORT CERTIFICATE KEY CA DIRECTORY

TLS 1.2 with certificates on both sides; the digest operations, RSA decryption that hands out the whole
block, ping; error 5 for every other opcode. Keys are the PEM files `*.key` of the directory. Prints a line
for each request: its opcode and the tags of its items.
"""

import hashlib
import socket
import ssl
import struct
import sys
import threading
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import (
    Encoding, PublicFormat, load_pem_private_key,
)

SKI, OPCODE, PAYLOAD, PADDING = 0x04, 0x11, 0x12, 0x20
RESPONSE, PING, PONG, ERROR = 0xF0, 0xF1, 0xF2, 0xFF
KEY_NOT_FOUND, BAD_OPCODE, CRYPTO_FAILURE, INTERNAL = 2, 5, 1, 8
# As the opcodes count them, from SHA-1 on.
HASHES = {1: hashes.SHA1(), 2: hashes.SHA224(), 3: hashes.SHA256(), 4: hashes.SHA384(),
          5: hashes.SHA512()}

#: Lines of connections side by side stay whole.
PRINTING = threading.Lock()


class Refusal(Exception):
    pass


def ski(key):
    """SHA-1 of the bits of the public key (RFC 5280, section 4.2.1.2)."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        bits = public.public_bytes(Encoding.DER, PublicFormat.PKCS1)
    else:
        bits = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return hashlib.sha1(bits).digest()


def operate(keys, opcode, items):
    payload = items.get(PAYLOAD, b"")
    if opcode == PING:
        return payload
    family = "rsa" if opcode in (1, *range(0x03, 0x08), *range(0x35, 0x38)) else "ec"
    if family == "ec" and opcode not in range(0x13, 0x18):
        raise Refusal(BAD_OPCODE)
    if SKI not in items:
        raise Refusal(INTERNAL)
    key = keys.get(items[SKI])
    if key is None:
        raise Refusal(KEY_NOT_FOUND)
    if (family == "rsa") != isinstance(key, rsa.RSAPrivateKey):
        raise Refusal(CRYPTO_FAILURE)
    if opcode == 1:
        numbers = key.private_numbers()
        modulus = numbers.public_numbers.n
        plain = pow(int.from_bytes(payload, "big"), numbers.d, modulus)
        return plain.to_bytes(key.key_size // 8, "big")
    if family == "ec":
        return key.sign(payload, ec.ECDSA(utils.Prehashed(HASHES[opcode - 0x12])))
    if opcode >= 0x35:
        digest = HASHES[opcode - 0x35 + 3]
        pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
        return key.sign(payload, pss, utils.Prehashed(digest))
    return key.sign(payload, padding.PKCS1v15(), utils.Prehashed(HASHES[opcode - 0x02]))


def exactly(stream, length):
    received = b""
    while len(received) < length:
        part = stream.recv(length - len(received))
        if not part:
            raise EOFError
        received += part
    return received


def answer(keys, body):
    items, tags = {}, []
    while len(body) >= 3:
        tag, length = struct.unpack(">BH", body[:3])
        items[tag] = body[3:3 + length]
        tags.append(tag)
        body = body[3 + length:]
    opcode = items[OPCODE][0]
    line = " ".join([f"request {opcode:#04x} with", *(f"{tag:#04x}" for tag in tags)])
    with PRINTING:
        print(line, flush=True)
    try:
        return PONG if opcode == PING else RESPONSE, operate(keys, opcode, items)
    except Refusal as refusal:
        return ERROR, bytes(refusal.args)


def item(tag, value):
    return struct.pack(">BH", tag, len(value)) + value


def serve(stream, keys):
    while True:
        major, minor, length, number = struct.unpack(">BBHI", exactly(stream, 8))
        assert (major, minor) == (1, 0)
        opcode, result = answer(keys, exactly(stream, length))
        body = item(OPCODE, bytes([opcode])) + (item(PAYLOAD, result) if result else b"")
        body += item(PADDING, bytes(max(0, 1024 - 8 - len(body) - 3)))
        stream.sendall(struct.pack(">BBHI", 1, 0, len(body), number) + body)


def main():
    address, port, certificate, key, authority, directory = sys.argv[1:]
    keys = {}
    for path in Path(directory).glob("*.key"):
        loaded = load_pem_private_key(path.read_bytes(), None)
        keys[ski(loaded)] = loaded
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AES256+AESGCM")
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(authority)
    context.verify_mode = ssl.CERT_REQUIRED

    def connection(raw):
        try:
            with context.wrap_socket(raw, server_side=True) as stream:
                serve(stream, keys)
        except (EOFError, OSError):
            pass

    with socket.create_server((address, int(port))) as listener:
        while True:
            raw, _ = listener.accept()
            threading.Thread(target=connection, args=(raw,), daemon=True).start()


main()
