"""A TLS 1.3 edge that has a delegated credential and not the key of its certificate, on tlslite-ng; and its client.

    delegated_handshake.py serve CERTIFICATE.pem CREDENTIAL KEY.pk8
    delegated_handshake.py connect PORT

`serve` says `listening on ADDRESS`, and of each connection `served` or why it was not. Without a credential that the
client takes it can sign nothing. `connect` verifies the credential and the handshake, not the certificate, and prints
the page: it is for the kinds of keys that NSS cannot verify credentials of.
"""

import base64
import socket
import sys

from tlslite.api import HandshakeSettings, TLSConnection, X509CertChain, parsePEMKey
from tlslite.constants import SignatureScheme
from tlslite.utils.codec import Parser
from tlslite.x509 import DelegatedCredential


def settings():
    only = HandshakeSettings()
    only.minVersion = only.maxVersion = (3, 4)
    return only


def serve(certificate_file, credential_file, key_file):
    chain = X509CertChain()
    chain.parsePemList(open(certificate_file).read())
    credential = DelegatedCredential().parse(Parser(bytearray(open(credential_file, "rb").read())))
    der = base64.encodebytes(open(key_file, "rb").read()).decode()
    key = parsePEMKey(f"-----BEGIN PRIVATE KEY-----\n{der}-----END PRIVATE KEY-----\n", private=True)
    listener = socket.create_server(("127.0.0.1", 0))
    print("listening on 127.0.0.1:%d" % listener.getsockname()[1], flush=True)
    while True:
        client, _ = listener.accept()
        client.settimeout(60)
        connection = TLSConnection(client)
        try:
            connection.handshakeServer(
                certChain=chain, privateKey=None, dc_key=key, del_cred=credential, settings=settings()
            )
            connection.read(min=1, max=1000)
            connection.write(b"HTTP/1.0 200 OK\r\n\r\nby a delegated credential\n")
            connection.close()
            print("served", flush=True)
        except Exception as error:
            print("not served:", repr(error), flush=True)
        finally:
            client.close()


def connect(port):
    with socket.create_connection(("127.0.0.1", int(port)), timeout=60) as server:
        connection = TLSConnection(server)
        wanted = settings()
        wanted.dc_sig_algs = [SignatureScheme.ecdsa_secp256r1_sha256]
        connection.handshakeClientCert(serverName="localhost", settings=wanted)
        assert connection.session.delegated_credential, "no credential was presented"
        connection.write(b"GET / HTTP/1.0\r\n\r\n")
        print(bytes(connection.read(min=1, max=1000)).decode())


if __name__ == "__main__":
    {"serve": serve, "connect": connect}[sys.argv[1]](*sys.argv[2:])
