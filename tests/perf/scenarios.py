"""The scenarios. Each is a function that makes its world, puts its load on a server, and yields
rows: what was measured, and what must be shown.

Throughput is in answers per second of the server's CPU time, because that does not depend on how
busy the rest of the machine is; latency is the `service` time of the load generator, from the
moment a request left.
"""

import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from processes import Failure, Load, background
from world import World

SCENARIOS = {}


@dataclass
class Row:
    """One line of the table. `bound` is what must be shown: "110,000 or more", "2 ms or less"."""

    what: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    #: The best existing server on such a machine.
    existing: str = "-"
    aim: str = "-"
    note: str = ""

    @property
    def verdict(self):
        if self.at_least is None and self.at_most is None:
            return "-"
        high_enough = self.at_least is None or self.value >= self.at_least
        low_enough = self.at_most is None or self.value <= self.at_most
        return "PASS" if high_enough and low_enough else "FAIL"

    def __str__(self):
        bound = "-"
        if self.at_least is not None:
            bound = f"at least {number(self.at_least)}"
        if self.at_most is not None:
            bound = f"at most {number(self.at_most)}" if self.at_least is None else f"exactly {number(self.at_most)}"
        cells = [self.what, f"{number(self.value)} {self.unit}".strip(), self.existing, bound]
        return "| " + " | ".join([*cells, self.aim, self.verdict, self.note]) + " |"


HEADER = """| scenario | measured | existing | must show | aim | verdict | beside it |
|---|---|---|---|---|---|---|"""


def number(value):
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def scenario(name, about):
    """Registers a scenario under its name."""

    def register(run):
        SCENARIOS[name] = (run, about)
        return run

    return register


@contextmanager
def world(clients=("edge",), rsa=True, p256=1):
    """A directory with these clients and keys, removed afterwards."""
    with TemporaryDirectory(prefix="keyserver-perf-") as directory:
        made = World(directory)
        for client in clients:
            made.add_client(client)
        if rsa:
            made.add_rsa_key()
        made.add_p256_keys(p256)
        yield made


def closed(connections, in_flight, mix):
    """Options of a closed loop."""
    return ["--closed", "-c", connections, "--inflight-per-conn", in_flight, "--mix", mix]


def open_loop(rate, connections, in_flight, mix):
    """Options of an open loop."""
    return ["-r", rate, "-c", connections, "--inflight-per-conn", in_flight, "--mix", mix]


# ---- throughput ------------------------------------------------------------------------------


def throughput(machine, mix, what, existing, at_least, aim):
    with world() as made, machine.server(made) as server:
        result = Load(machine, server, "edge", *closed(16, 16, mix), seconds=4).result()
        yield Row(
            what, result.per_core_second, "/core-s", at_least=at_least, existing=existing, aim=aim,
            note=f"{number(result.answered)}/s, {result.cpu_us:.2f} us each, "
            f"p99 {result.percentile_ms('p99'):.2f} ms",
        )


@scenario("ping-16x16", "pings, 16 connections x 16 deep, per server core-second")
def ping(machine):
    return throughput(machine, "ping", "ping, 16 x 16", "45,700", 450_000, "900,000")


@scenario("p256-16x16", "P-256 signatures, likewise")
def p256(machine):
    return throughput(machine, "p256", "P-256 sign, 16 x 16", "17,000", 110_000, "220,000")


@scenario("rsa2048-16x16", "RSA-2048 signatures, likewise")
def rsa2048(machine):
    return throughput(machine, "rsa2048", "RSA-2048 sign, 16 x 16", "1,340", 12_500, "15,000")


@scenario("rsa2048-decrypt", "RSA-2048 decryptions, likewise")
def rsa2048_decrypt(machine):
    what = "RSA-2048 decrypt, 16 x 16"
    return throughput(machine, "rsa2048-decrypt", what, "1,150", 12_000, "15,000")


# ---- short work beside long work -------------------------------------------------------------


def lone(machine, mix, what, existing, at_most, aim):
    with world(clients=("edge", "lone")) as made, machine.server(made) as server:
        rsa = Load(machine, server, "edge", *closed(4, 16, "rsa2048"), seconds=60)
        with background(rsa):
            time.sleep(2)
            load = Load(machine, server, "lone", *open_loop(500, 1, 16, mix), seconds=10)
            result = load.result()
            yield Row(
                what, result.percentile_ms("p99"), "ms p99", at_most=at_most,
                existing=existing, aim=aim,
                note=f"p50 {result.percentile_ms('p50'):.2f} ms, "
                f"p99.9 {result.percentile_ms('p999'):.2f} ms",
            )


@scenario("lone-p256", "a lone P-256 client beside 64 outstanding RSA-2048 signatures")
def lone_p256(machine):
    what = "lone P-256 beside 64 RSA-2048"
    return lone(machine, "p256", what, "64 ms (p50 49 ms)", 2, "1 ms")


@scenario("lone-ping", "a lone pinging client beside the same")
def lone_ping(machine):
    return lone(machine, "ping", "lone ping beside 64 RSA-2048", "61 ms", 1, "0.3 ms")


# ---- overload --------------------------------------------------------------------------------

#: What the server promises while it is not overloaded, 99 times in 100, by class and in
#: milliseconds: `target` in keyserver/src/limits.rs. Overloaded, it promises twice that to what it
#: admits, from when it has read a request until the reply goes to the socket.
TARGET_MS = {"p256": 5, "rsa2048": 10}


def overload(machine, mix):
    seconds = machine.overload_seconds
    with world(clients=("edge", "light")) as made, machine.server(made) as server:
        peaks = [Load(machine, server, "edge", *closed(16, 16, mix), seconds=5).result()]
        rate = f"{10 * peaks[0].answered:.0f}"
        options = open_loop(rate, 16, 64, mix) + ["--timeout", "1s", "--verify", "none"]
        load = Load(machine, server, "edge", *options, seconds=seconds)
        # Asks for a hundredth of what there is at most, and is to notice nothing of the flood. Each of its requests is
        # read and answered alone, which takes as long as several of the flood: with a hundredth of P-256, 2,000 a second,
        # goodput was 90 to 93 %.
        rate = f"{min(peaks[0].answered / 100, 200):.0f}"
        light = Load(machine, server, "light", *open_loop(rate, 1, 16, mix), seconds=seconds - 2)
        with background(load), background(light):
            time.sleep(min(5, seconds / 2))
            memory, admitted = server.resident_bytes(), server.durations("total")
            result, beside = load.result(), light.result()
            answered = result.answered + beside.answered
        memory = (server.resident_bytes() - memory) / 2**20
        admitted = server.durations("total").since(admitted)
        # A machine may have become slower or quicker in that minute.
        peaks.append(Load(machine, server, "edge", *closed(16, 16, mix), seconds=5).result())
        peak = statistics.mean(one.answered for one in peaks)
        core_second = statistics.mean(one.per_core_second for one in peaks)
        refused = {code: count for code, count in result.errors.items() if code != "unsent"}
        name = f"10 x overload, {mix}"
        yield Row(
            f"{name}: goodput of peak", 100 * answered / peak, "%", at_least=95,
            note=f"both clients; peak before and after {', '.join(number(one.answered) for one in peaks)}/s, "
            f"offered {number(result.result['offered'])}/s; "
            + "".join(f"{code} {number(count / seconds)}/s; " for code, count in refused.items())
            + f"{100 * result.per_core_second / core_second:.1f} % per core-second",
        )
        yield Row(
            f"{name}: goodput of the flood alone, of peak", 100 * result.answered / peak,
            "%", at_least=95, note="without what the light client got meanwhile",
        )
        yield Row(
            f"{name}: p99 of what was admitted", admitted.quantile_ms(0.99), "ms",
            at_most=2 * TARGET_MS[mix],
            note=f"p50 {admitted.quantile_ms(0.5):.1f} ms; from reading the request to its reply. "
            "The flood's own clock also counts what its requests wait before they are read: "
            f"p50 {result.percentile_ms('p50'):.1f} ms, p99 {result.percentile_ms('p99'):.1f} ms",
        )
        yield Row(
            f"{name}: p99 of a light client beside it", beside.percentile_ms("p99"), "ms",
            at_most=2 * TARGET_MS[mix],
            note=f"by the client's clock; p50 {beside.percentile_ms('p50'):.2f} ms; "
            f"{sum(beside.errors.values())} of {beside.answered * (seconds - 2):,.0f} refused or failed",
        )
        yield Row(
            f"{name}: memory grew by", memory, "MiB", at_most=4,
            note=f"to {server.resident_bytes() / 2**20:.1f} MiB",
        )
        lost = result.result["connections_lost"] + sum(
            result.errors.get(silent, 0) for silent in ("disconnected", "timeout")
        )
        yield Row(f"{name}: requests without an answer", lost, "", at_most=0)


@scenario("overload-10x-p256", "ten times the capacity offered for a minute, P-256")
def overload_p256(machine):
    return overload(machine, "p256")


@scenario("overload-10x-rsa2048", "the same with RSA-2048")
def overload_rsa2048(machine):
    return overload(machine, "rsa2048")


@scenario("greedy", "ten light clients beside one with 1,024 requests in flight")
def greedy(machine):
    # Clients know nothing of each other, unless they have the same seed: then all ten ask at the same moments.
    yield greedy_row(machine, "light clients beside a greedy one", lambda at: 100 + at)
    yield greedy_row(machine, "the same, all ten asking at the same moments", lambda _: 42)


def greedy_row(machine, what, seed):
    lights = [f"light-{number}" for number in range(10)]
    with ExitStack() as stack:
        made = stack.enter_context(world(clients=("greedy", *lights)))
        server = stack.enter_context(machine.server(made))
        load = Load(machine, server, "greedy", *closed(4, 256, "rsa2048"), seconds=60)
        stack.enter_context(background(load))
        time.sleep(2)
        options = open_loop(50, 1, 16, "rsa2048")
        loads = [
            Load(machine, server, light, *options, "--seed", seed(at), seconds=10)
            for at, light in enumerate(lights)
        ]
        for light in loads:
            stack.enter_context(background(light))
        results = [light.result() for light in loads]
        worst = max(result.percentile_ms("p99") for result in results)
        best = min(result.percentile_ms("p99") for result in results)
        failed = sum(sum(result.errors.values()) for result in results)
        return Row(
            what, worst, "ms p99", at_most=5, existing="131 ms (first come, first served)",
            note=f"the worst of ten; the best {best:.2f} ms; {failed} of theirs refused or failed",
        )


# ---- strangers -------------------------------------------------------------------------------

#: Strangers opened a second: enough for 2,200 that live for two seconds; and more than can be.
EVENLY, FAST = 1200, 1_000_000


@contextmanager
def strangers(machine, server, half_open, dripping, *, rude=False):
    """Connections that come to nothing, while the block lasts."""
    script = Path(__file__).with_name("strangers.py")
    # They share a core with the clients that are measured. In the kernel's ordinary class, where the rude
    # ones run, they take time slices of some milliseconds from them, and the figure is about that; in the
    # idle class they run when the clients have nothing to do. The rude ones also open as fast as they can.
    command = [sys.executable, script, server.port, half_open, dripping]
    command = [*command, FAST] if rude else ["chrt", "--idle", "0", *command, EVENLY]
    process = machine.spawn(machine.load_core, command, stdout=subprocess.PIPE, text=True)
    crowd = []
    try:
        process.stdout.readline()
        time.sleep(3)
        if process.poll() is not None:
            raise Failure("strangers.py ended")
        yield crowd
    finally:
        process.kill()
        reports, _ = process.communicate()
        # Without those of the time in which they came.
        crowd += map(int, reports.split()[6:])


#: How often what differs little is measured, in turns; the middle one counts. The speed of a machine that others use too
#: changes by a fifth within minutes, its 99th percentiles and its reads from memory by more.
TURNS = 7


@scenario("half-open", "established clients beside 2,000 half-open and 200 dripping connections")
def half_open(machine):
    options = open_loop("20k", 16, 64, "p256")
    yield from half_open_rude(machine, options)
    with world() as made, machine.server(made) as server:
        ratios, own_ratios, notes = [], [], []
        for _ in range(TURNS):
            own = [server.durations("total")]
            alone = Load(machine, server, "edge", *options, seconds=5).result()
            own.append(server.durations("total"))
            established = Load(machine, server, "edge", *options, seconds=5, warmup=4)
            with background(established):
                time.sleep(0.5)
                opened = server.metric("keyserver_connections_opened_total")
                with strangers(machine, server, 2000, 200) as reports:
                    own.append(server.durations("total"))
                    beside = established.result()
                    own.append(server.durations("total"))
                crowd = size(reports)
            opened = server.metric("keyserver_connections_opened_total") - opened
            before, after = alone.percentile_ms("p99"), beside.percentile_ms("p99")
            ratios.append(100 * after / before)
            quick, slow = (
                late.since(early).quantile_ms(0.99) for early, late in (own[:2], own[2:])
            )
            own_ratios.append(100 * slow / quick)
            notes.append(f"{before:.2f} and {after:.2f}")
        yield Row(
            "p99 beside half-open and dripping connections", statistics.median(ratios), "% of alone",
            at_most=120,
            note=f"the middle of {TURNS}: {', '.join(notes)} ms alone and beside {crowd:.0f}; by the server's clock "
            f"{statistics.median(own_ratios):.0f} %; {opened / 8:.0f} strangers a second got as far as the server",
        )


def half_open_rude(machine, options):
    with world() as made, machine.server(made) as server:
        alone = Load(machine, server, "edge", *options, seconds=12, warmup=5).result()
        established = Load(machine, server, "edge", *options, seconds=12, warmup=5)
        with background(established):
            time.sleep(1)
            with strangers(machine, server, 2000, 200, rude=True):
                beside = established.result()
                late = Load(machine, server, "edge", *options, seconds=2).result()
        before, after = alone.percentile_ms("p99"), beside.percentile_ms("p99")
        yield Row(
            "p99 beside strangers with time slices of their own, as fast as they come",
            100 * after / before, "% of alone", at_most=120,
            note=f"{before:.2f} ms alone, {after:.2f} ms beside; "
            f"a client that connects meanwhile {late.percentile_ms('p99'):.2f} ms",
        )


def size(crowd):
    """How many strangers were connected on the average."""
    mean = sum(crowd) / max(len(crowd), 1)
    if mean < 1800:
        raise Failure(f"only {mean:.0f} of 2,200 strangers were there: the machine is too busy")
    return mean


# ---- cost of what is only there --------------------------------------------------------------


@scenario("keys-100000", "cost of a signature and of a start with 1, 1,000 and 100,000 keys")
def keys(machine):
    counts = (1, 1_000, 100_000)
    with ExitStack() as stack:
        made = stack.enter_context(world(rsa=False, p256=0))
        servers = {}
        for count in counts:
            directory = f"keys-{count}"
            made.add_p256_keys(count, directory)
            servers[count] = stack.enter_context(machine.server(made, keys=directory))
        memory = {count: server.resident_bytes() for count, server in servers.items()}
        costs = {count: [] for count in counts}
        for _ in range(TURNS):
            for count, server in servers.items():
                load = Load(machine, server, "edge", *closed(16, 16, "p256"), seconds=2)
                costs[count].append(load.result().cpu_us)
        for count, server in servers.items():
            yield Row(
                f"P-256 sign with {count:,} keys loaded", statistics.median(costs[count]), "us of CPU",
                at_most=1.15 * statistics.median(costs[1]),
                note=f"{min(costs[count]):.2f} to {max(costs[count]):.2f} us in {TURNS} turns; "
                f"start {server.start_seconds:.2f} s, {memory[count] / 2**20:.1f} MiB resident",
            )


#: More connections than one address may have unless configured, and as fast as they come.
ROOM_FOR_A_CROWD = """
[limits]
connections = 12000
connections_per_source = 12000
handshake_rate_per_source = 10000
"""


@scenario("idle-10000", "cost of a ping, and memory, with 10,000 idle connections beside")
def idle(machine):
    for backend in ("uring", "epoll"):
        with ExitStack() as stack:
            made = stack.enter_context(world(rsa=False))
            server = stack.enter_context(
                machine.server(made, backend=backend, extra=ROOM_FOR_A_CROWD)
            )
            options = closed(16, 16, "ping")
            alone = Load(machine, server, "edge", *options, seconds=4).result()
            memory = server.resident_bytes()
            for crowd in range(1, 11):
                load = Load(
                    machine, server, "edge", *open_loop(1, 1000, 1, "ping"), seconds=120
                )
                stack.enter_context(background(load))
                wait_for(lambda: server.metric("keyserver_connections") >= 1000 * crowd)
            time.sleep(2)
            each = (server.resident_bytes() - memory) / 10_000
            spent = server.cpu_seconds()
            time.sleep(3)
            spent = (server.cpu_seconds() - spent) / 3
            beside = Load(machine, server, "edge", *options, seconds=4).result()
            yield Row(
                f"ping beside 10,000 idle connections, {backend}", beside.cpu_us, "us of CPU",
                at_most=1.15 * alone.cpu_us,
                note=f"{alone.cpu_us:.2f} us alone; {100 * spent:.1f} % of a core when idle",
            )
            yield Row(f"memory of an idle connection, {backend}", each / 1024, "KiB", at_most=24)


@scenario("memory", "resident memory after every kind of load")
def memory(machine):
    with world() as made, machine.server(made) as server:
        start = server.resident_bytes()
        for mix in ("ping", "p256", "rsa2048", "rsa2048-decrypt", "rsa2048=65,p256=30,ping=5"):
            for connections, in_flight in ((16, 16), (64, 64)):
                options = closed(connections, in_flight, mix)
                Load(machine, server, "edge", *options, seconds=1).result()
        yield Row(
            "resident memory after all of it", server.resident_bytes() / 2**20, "MiB", at_most=64,
            existing="28 MiB", aim="32 MiB", note=f"{start / 2**20:.1f} MiB at the start",
        )


@scenario("syscalls", "system calls and CPU time per request, on both I/O backends")
def syscalls(machine):
    for backend in ("uring", "epoll"):
        for mix, depth in (("ping", 16), ("ping", 1), ("p256", 16)):
            with world(rsa=False) as made, machine.server(made, backend=backend) as server:
                load = Load(machine, server, "edge", *closed(16, depth, mix), seconds=5)
                with background(load):
                    time.sleep(2)
                    requests = server.metric("keyserver_requests_total")
                    calls = count_syscalls(server.pid, 2)
                    requests = server.metric("keyserver_requests_total") - requests
                    result = load.result()
                yield Row(
                    f"{mix}, 16 x {depth}, {backend}", calls / requests, "system calls a request",
                    note=f"{result.cpu_us:.2f} us of CPU a request",
                )


def count_syscalls(pid, seconds):
    """System calls of a process, counted by the kernel. Needs `perf` and its privileges."""
    command = ["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p", str(pid)]
    done = subprocess.run([*command, "sleep", str(seconds)], capture_output=True, text=True)
    try:
        return int(done.stderr.split(",")[0])
    except ValueError:
        raise Failure(f"perf cannot count system calls: {done.stderr.strip()}") from None


def wait_for(condition, limit=60):
    """Looks until it holds."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise Failure("what was waited for did not happen")
        time.sleep(0.05)
