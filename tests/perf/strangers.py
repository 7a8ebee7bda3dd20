"""Connections that come to nothing, kept up until the process is ended.

    strangers.py PORT HALF_OPEN DRIPPING OPENED_A_SECOND

HALF_OPEN connections say nothing; each is opened again when the server closes it. DRIPPING ones
send a hello of TLS byte by byte, one every 50 ms. They come from 500 addresses of the loopback
network, so that what the server allows one address does not stop them. They are spread evenly over
the time, because this process shares a core with clients that are measured.

It prints a line when it begins, and then how many are open, twice a second.
"""

import itertools
import selectors
import socket
import sys
import time

#: Between two looks.
TICK_SECONDS = 0.005
#: A dripping connection says a byte every so many ticks.
DRIP_TICKS = 10
#: Between two reports.
REPORT_TICKS = 100
#: Of those that are due because this process had no CPU, so many at once.
OPENED_A_TICK_MAX = 60
#: A record header and the beginning of a client hello that announces more than will ever come.
HELLO = bytes([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]) + bytes(500)


class Strangers:
    """All of them, and those that are to be opened again."""

    def __init__(self, port, half_open, dripping, opened_a_second):
        self.port, self.opened_a_second = port, opened_a_second
        self.selector = selectors.DefaultSelector()
        # In which turn a dripping one says its bytes, and how many it has said; None for the silent.
        self.open = {}
        self.turns = [set() for _ in range(DRIP_TICKS)]
        self.due = 0.0
        self.ticked = time.monotonic()
        self.wanted = [None] * half_open + [turn % DRIP_TICKS for turn in range(dripping)]
        self.addresses = itertools.cycle(
            f"127.1.{high}.{low}" for high in range(2) for low in range(1, 251)
        )

    def enter(self, turn):
        stream = socket.socket()
        stream.setblocking(False)
        stream.bind((next(self.addresses), 0))
        stream.connect_ex(("127.0.0.1", self.port))
        self.selector.register(stream, selectors.EVENT_READ)
        self.open[stream] = [turn, 0]
        if turn is not None:
            self.turns[turn].add(stream)

    def leave(self, stream):
        self.selector.unregister(stream)
        turn, _ = self.open.pop(stream)
        if turn is not None:
            self.turns[turn].discard(stream)
        stream.close()
        self.wanted.append(turn)

    def drip(self, stream):
        said = self.open[stream]
        try:
            stream.send(HELLO[said[1] : said[1] + 1])
            said[1] += 1
        except BlockingIOError:
            pass
        except OSError:
            self.leave(stream)

    def tick(self, number):
        for key, _ in self.selector.select(0):
            try:
                alive = key.fileobj.recv(64) != b""
            except BlockingIOError:
                alive = True
            except OSError:
                alive = False
            if not alive:
                self.leave(key.fileobj)
        now = time.monotonic()
        due = self.due + (now - self.ticked) * self.opened_a_second
        self.due = min(due, OPENED_A_TICK_MAX)
        self.ticked = now
        while self.due >= 1 and self.wanted:
            self.due -= 1
            self.enter(self.wanted.pop(0))
        for stream in list(self.turns[number % DRIP_TICKS]):
            self.drip(stream)


def main():
    strangers = Strangers(*map(int, sys.argv[1:]))
    print("ready", flush=True)
    due = time.monotonic()
    for number in itertools.count():
        strangers.tick(number)
        if number % REPORT_TICKS == REPORT_TICKS - 1:
            print(len(strangers.open), flush=True)
        due = max(due + TICK_SECONDS, time.monotonic())
        time.sleep(max(0, due - time.monotonic()))


main()
