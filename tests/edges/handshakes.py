"""Makes TLS handshakes, each with a connection of its own, and checks everything about them.

usage: handshakes.py CA COUNT THREADS PORT/VERSION...

The certificate must be good for localhost, the version must be the one asked for, and the answer to
a request must be the expected one: a client that sends nothing over TLS 1.3 does not notice that the
server could not sign. Prints `ok N failed M` and up to ten reasons.
"""

import socket
import ssl
import sys
import threading


def main():
    ca, count, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    targets = []
    for text in sys.argv[4:]:
        port, version = text.split("/")
        context = ssl.create_default_context(cafile=ca)
        wanted = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
        context.minimum_version = context.maximum_version = wanted
        targets.append((int(port), "TLSv" + version, context))

    lock = threading.Lock()
    done = {"next": 0, "ok": 0}
    reasons = []

    def work():
        while True:
            with lock:
                number = done["next"]
                if number >= count:
                    return
                done["next"] += 1
            port, version, context = targets[number % len(targets)]
            try:
                handshake(port, version, context)
            except (OSError, AssertionError) as error:
                with lock:
                    reasons.append(f"{port}/{version}: {error!r}")
                continue
            with lock:
                done["ok"] += 1

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(f"ok {done['ok']} failed {len(reasons)}")
    for reason in reasons[:10]:
        print(reason)


def handshake(port, version, context):
    with socket.create_connection(("127.0.0.1", port), timeout=90) as raw:
        with context.wrap_socket(raw, server_hostname="localhost") as tls:
            assert tls.version() == version, tls.version()
            assert not tls.session_reused
            tls.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            answer = b""
            while part := tls.recv(4096):
                answer += part
    assert b"served from the edge" in answer, answer


main()
