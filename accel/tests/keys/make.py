#!/usr/bin/env python3
"""Makes the test keys of this directory anew. They protect nothing.

Needs openssl 3.0 on the path. Good keys come from openssl, bad ones are put together here from numbers.
"""

import base64
import math
import os
import secrets
import subprocess


def openssl(*arguments, data=None):
    return subprocess.run(
        ["openssl", *arguments], input=data, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ).stdout


def write(name, content):
    with open(name, "wb") as file:
        file.write(content)


# DER, just enough to write private keys.


def element(tag, content):
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content


def integer(number):
    return element(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def sequence(*parts):
    return element(0x30, b"".join(parts))


def pem(label, der):
    text = base64.encodebytes(der).replace(b"\n", b"")
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    return b"-----BEGIN %s-----\n%s\n-----END %s-----\n" % (label, b"\n".join(lines), label)


def rsa(n, e, d, p, q, dp, dq, qinv):
    numbers = (0, n, e, d, p, q, dp, dq, qinv)
    return pem(b"RSA PRIVATE KEY", sequence(*map(integer, numbers)))


def rsa_from_primes(p, q, e):
    d = pow(e, -1, (p - 1) * (q - 1))
    qinv = pow(q, -1, p) if p != q else 1
    return rsa(p * q, e, d, p, q, d % (p - 1), d % (q - 1), qinv)


def otherwise(p, q, e):
    """The same key: d by Carmichael's function and not by Euler's, and the primes the other way around."""
    d = pow(e, -1, math.lcm(p - 1, q - 1))
    return rsa(p * q, e, d, q, p, d % (q - 1), d % (p - 1), pow(p, -1, q))


def prime(number):
    """Fermat, after the small divisors: enough for numbers nobody chose."""
    if any(number % divisor == 0 for divisor in range(3, 3000, 2)):
        return False
    return all(pow(base, number - 1, number) == 1 for base in (2, 3))


def next_prime(number, e):
    number |= 1
    while (number - 1) % e == 0 or not prime(number):
        number += 2
    return number


def random_prime(bits, e=65537):
    return next_prime(secrets.randbits(bits) | (3 << (bits - 2)), e)


def good():
    for name, bits in (("rsa2048", 2048), ("rsa2048-b", 2048), ("rsa2304", 2304), ("rsa3072", 3072),
                       ("rsa3072-b", 3072), ("rsa4096", 4096), ("rsa4096-b", 4096), ("rsa8192", 8192)):
        write(f"{name}.pkcs8.pem", openssl("genrsa", str(bits)))
    write("rsa2048.pkcs1.pem", openssl("rsa", "-in", "rsa2048.pkcs8.pem", "-traditional"))
    write("rsa2048.pkcs8.der", openssl("pkcs8", "-topk8", "-nocrypt", "-in", "rsa2048.pkcs8.pem", "-outform", "DER"))
    write("rsa2048.pkcs1.der", openssl("rsa", "-in", "rsa2048.pkcs8.pem", "-traditional", "-outform", "DER"))
    # A modulus whose length is not a multiple of eight bits.
    write("rsa2052.pkcs1.pem", rsa_from_primes(random_prime(1026), random_prime(1026), 65537))
    # Primes of different lengths, which the Chinese remainder theorem does not mind.
    p, q = random_prime(1100), random_prime(948)
    write("rsa2048-uneven.pkcs1.pem", rsa_from_primes(p, q, 65537))
    write("rsa2048-uneven-otherwise.pkcs1.pem", otherwise(p, q, 65537))
    for name, curve in (("p256", "P-256"), ("p256-b", "P-256"), ("p384", "P-384"), ("p384-b", "P-384"), ("p521", "P-521")):
        write(f"{name}.pkcs8.pem", openssl("genpkey", "-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{curve}"))
    write("p256.pkcs8.der", openssl("pkcs8", "-topk8", "-nocrypt", "-in", "p256.pkcs8.pem", "-outform", "DER"))
    sec1 = openssl("ec", "-in", "p256.pkcs8.pem")
    write("p256.sec1.pem", sec1)
    write("p256.sec1.der", openssl("ec", "-in", "p256.pkcs8.pem", "-outform", "DER"))
    write("p256-parameters.sec1.pem", openssl("ecparam", "-name", "prime256v1") + sec1)
    write("p256-no-public.sec1.pem", openssl("ec", "-in", "p256.pkcs8.pem", "-no_public"))
    write("p256-compressed.sec1.pem", openssl("ec", "-in", "p256.pkcs8.pem", "-conv_form", "compressed"))
    write("ed25519.pkcs8.pem", openssl("genpkey", "-algorithm", "ED25519"))
    for name, last in (("ml-dsa-44", 0x11), ("ml-dsa-65", 0x12), ("ml-dsa-87", 0x13)):
        oid = element(0x06, bytes([0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03, last]))
        seed = element(0x04, element(0x80, secrets.token_bytes(32)))
        write(f"{name}.pkcs8.pem", pem(b"PRIVATE KEY", sequence(integer(0), sequence(oid), seed)))
    for name in ("rsa2048", "p256", "ed25519"):
        write(f"{name}.crt", openssl("req", "-x509", "-new", "-key", f"{name}.pkcs8.pem", "-subj", f"/CN={name}.test", "-days", "36500"))
    write("rsa2048.crt.der", openssl("x509", "-in", "rsa2048.crt", "-outform", "DER"))


def bad():
    write("bad/rsa1024.pem", openssl("genrsa", "1024"))
    write("bad/rsa8200.pem", openssl("genrsa", "8200"))
    write("bad/exponent-3.pem", openssl("genrsa", "-3", "2048"))
    write("bad/exponent-40-bits.pem", rsa_from_primes(random_prime(1024, 2**39 + 23), random_prime(1024, 2**39 + 23), 2**39 + 23))
    p, q = random_prime(1024), random_prime(1024)
    write("bad/equal-primes.pem", rsa_from_primes(p, p, 65537))
    write("bad/close-primes.pem", rsa_from_primes(p, next_prime(p + 2**900, 65537), 65537))
    n, e, d = p * q, 65537, pow(65537, -1, (p - 1) * (q - 1))
    numbers = dict(n=n, e=e, d=d, p=p, q=q, dp=d % (p - 1), dq=d % (q - 1), qinv=pow(q, -1, p))
    write("bad/wrong-modulus.pem", rsa(**{**numbers, "n": random_prime(1024) * random_prime(1024)}))
    write("bad/wrong-exponent.pem", rsa(**{**numbers, "d": d + 2}))
    write("bad/unreduced-exponent.pem", rsa(**{**numbers, "dp": numbers["dp"] + p - 1}))
    write("bad/wrong-coefficient.pem", rsa(**{**numbers, "qinv": numbers["qinv"] ^ 4}))
    ours = openssl("ec", "-in", "p256.pkcs8.pem", "-outform", "DER")
    theirs = openssl("ec", "-in", "p256-b.pkcs8.pem", "-outform", "DER")
    write("bad/p256-other-public.pem", pem(b"EC PRIVATE KEY", ours[:-65] + theirs[-65:]))
    curve = element(0xA0, bytes.fromhex("06082a8648ce3d030107"))
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    for name, scalar in (("zero", 0), ("order", order)):
        octets = element(0x04, scalar.to_bytes(32, "big"))
        write(f"bad/p256-scalar-{name}.pem", pem(b"EC PRIVATE KEY", sequence(integer(1), octets, curve)))
    seed = element(0x04, element(0x04, secrets.token_bytes(32)))
    public = element(0x81, b"\0" + secrets.token_bytes(32))
    ed25519 = sequence(integer(1), sequence(bytes.fromhex("06032b6570")), seed, public)
    write("bad/ed25519-other-public.pem", pem(b"PRIVATE KEY", ed25519))
    write("bad/encrypted.pem", openssl("pkcs8", "-topk8", "-in", "p256.pkcs8.pem", "-passout", "pass:test"))
    write("bad/encrypted.der", openssl("pkcs8", "-topk8", "-in", "p256.pkcs8.pem", "-passout", "pass:test", "-outform", "DER"))
    write("bad/encrypted-traditional.pem", openssl("rsa", "-in", "rsa2048.pkcs8.pem", "-traditional", "-aes128", "-passout", "pass:test"))
    write("bad/secp256k1.pem", openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"))
    write("bad/p256-explicit.pem", openssl("ec", "-in", "p256.pkcs8.pem", "-param_enc", "explicit"))
    write("bad/x25519.pem", openssl("genpkey", "-algorithm", "X25519"))
    write("bad/public-only.pem", openssl("pkey", "-in", "p256.pkcs8.pem", "-pubout"))
    write("bad/two-keys.pem", b"".join(open(f"{name}.pkcs8.pem", "rb").read() for name in ("p256", "p384")))
    whole = open("rsa2048.pkcs8.pem", "rb").read()
    write("bad/truncated.pem", whole[: len(whole) // 2])
    write("bad/truncated.der", open("rsa2048.pkcs8.der", "rb").read()[:-1])
    write("bad/trailing-byte.der", open("rsa2048.pkcs8.der", "rb").read() + b"\0")


if __name__ == "__main__":
    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    os.makedirs("bad", exist_ok=True)
    good()
    bad()
