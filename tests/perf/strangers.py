"""Connections that come to nothing, kept up until the process is ended.

    strangers.py PORT HALF_OPEN DRIPPING

HALF_OPEN connections say nothing; each is opened again when the server closes it. DRIPPING ones
send a hello of TLS byte by byte, one every 50 ms. They come from 500 addresses of the loopback
network, so that what the server allows one address does not stop them.
"""

import itertools
import selectors
import socket
import sys
import time

PACE_SECONDS = 0.05
# A record header and the beginning of a client hello that announces more than will ever come.
HELLO = bytes([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]) + bytes(500)


def main():
    port, half_open, dripping = map(int, sys.argv[1:])
    selector = selectors.DefaultSelector()
    # Position in HELLO for the dripping ones; None for those that say nothing.
    strangers = {}

    addresses = itertools.cycle(
        f"127.1.{high}.{low}" for high in range(2) for low in range(1, 251)
    )

    def enter(position):
        stream = socket.socket()
        stream.setblocking(False)
        stream.bind((next(addresses), 0))
        stream.connect_ex(("127.0.0.1", port))
        selector.register(stream, selectors.EVENT_READ)
        strangers[stream] = position

    def leave(stream):
        selector.unregister(stream)
        stream.close()
        return strangers.pop(stream)

    wanted = [None] * half_open + [0] * dripping
    due = time.monotonic()
    print("ready", flush=True)
    while True:
        # At most 400 new ones a turn, so that this process does not starve the load beside it.
        for _ in range(min(20, len(wanted))):
            enter(wanted.pop())
        for key, _ in selector.select(max(0, due - time.monotonic())):
            stream = key.fileobj
            try:
                alive = stream.recv(64) != b""
            except OSError:
                alive = False
            if not alive:
                wanted.append(None if leave(stream) is None else 0)
        if time.monotonic() < due:
            continue
        due += PACE_SECONDS
        for stream, position in list(strangers.items()):
            if position is None:
                continue
            try:
                stream.send(HELLO[position : position + 1])
                strangers[stream] = position + 1
            except BlockingIOError:
                pass
            except OSError:
                leave(stream)
                wanted.append(0)


main()
