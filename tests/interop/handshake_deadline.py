"""How long a server waits for a handshake. The server's deadline is 2 s, which is what one has that is not told otherwise."""

import time

from differences import client_hello
from world import once

DEADLINE = 2.0
LATE = 10.0
"""What a busy machine may add."""


@once
def check_handshake_without_progress(world):
    """Closed after 2 seconds, whether a byte comes, half a ClientHello, or a few bytes at times."""
    hello = client_hello(world)
    for name, pieces in {
        "one byte": [hello[:1]],
        "half a ClientHello": [hello[: len(hello) // 2]],
        # They go on for 24 s: who only waits for the next one would not have closed by then.
        "a byte at times": [hello[n : n + 1] for n in range(80)],
    }.items():
        start = time.monotonic()
        with world.tcp() as tcp:
            tcp.settimeout(0.3)
            waited = None
            while time.monotonic() - start < 3 * (DEADLINE + LATE):
                try:
                    if pieces:
                        tcp.sendall(pieces.pop(0))
                    if not tcp.recv(1024):
                        waited = time.monotonic() - start
                        break
                except TimeoutError:
                    continue
                except ConnectionError:
                    waited = time.monotonic() - start
                    break
            assert waited is not None, f"{name}: still open after {time.monotonic() - start:.1f} s"
            assert DEADLINE * 0.75 < waited < DEADLINE + LATE, f"{name}: closed after {waited:.1f} s"
