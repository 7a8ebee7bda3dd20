"""What it costs to hold a key to its use: the ledger of ciphertexts, and signatures over checked strings.

Both are small shares of a figure that differs more than that from run to run, so each is measured side by
side: two servers, or two clients of one, take turns for several rounds, and the medians are compared.
"""

import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

from processes import TICKS_PER_SECOND, Load
from scenarios import Row, closed, number, scenario, world
from world import World

ROUNDS = 7

#: More ciphertexts than a round can ask for: each is answered once.
FRESH = 60_000


def cpu_of_threads(pid):
    """CPU seconds so far of all threads but those that compute, and of the ledger's own. What a key exchange costs
    those that compute, to make an answer that says nothing about its padding, is not the ledger's."""
    beside, own = 0, 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        name, fields = (thread / "stat").read_text().rsplit(")", 1)
        ticks = sum(map(int, fields.split()[11:13]))
        beside += ticks * ("(crypto-" not in name)
        own += ticks * name.endswith("(ledger")
    return beside / TICKS_PER_SECOND, own / TICKS_PER_SECOND


def medians(first, second):
    """Runs two measurements in turn, with a round for each to warm up; each returns a `Result`. Returns the
    medians of their CPU time and their rates."""
    first(), second()
    runs = [(first(), second()) for _ in range(ROUNDS)]
    cpu = [statistics.median(run[which].cpu_us for run in runs) for which in (0, 1)]
    rate = [statistics.median(run[which].answered for run in runs) for which in (0, 1)]
    return cpu, rate


@scenario("ledger-cost", "what the ledger takes of RSA-2048 decryptions, beside raw ones that are not recorded")
def ledger_cost(machine):
    with TemporaryDirectory(prefix="keyserver-perf-", dir="/var/tmp") as directory:
        made = World(directory)
        made.add_client("raw", ("decrypt-raw",))
        made.add_client("recorded", ("decrypt-compatible",))
        made.add_rsa_key()
        with machine.server(made, extra='[ledger]\ndirectory = "ledger"\n') as server:
            seeds = iter(range(1000))

            around = {"raw": [], "recorded": []}
            alone = {"raw": [], "recorded": []}

            def run(client):
                before = cpu_of_threads(server.pid)
                # Other ciphertexts every time: none may come again.
                fresh = ["--fresh", FRESH, "--seed", next(seeds)]
                options = [*closed(16, 16, "rsa2048-decrypt"), *fresh]
                result = Load(machine, server, client, *options, seconds=2).result()
                if result.errors:
                    raise RuntimeError(f"{client}: {result.errors}")
                # Two seconds are measured, after one to warm up.
                spent = zip(cpu_of_threads(server.pid), before)
                beside, own = (1e6 * (now - then) / (3 * result.answered) for now, then in spent)
                around[client].append(beside)
                alone[client].append(own)
                return result

            cpu, rate = medians(lambda: run("raw"), lambda: run("recorded"))
            writes = server.metric("keyserver_ledger_writes_total")
            decisions = server.metric("keyserver_ledger_decisions_total")
            took = server.metric("keyserver_ledger_write_seconds_total")
        beside = (
            f"{number(rate[1])}/s, {number(rate[0])}/s without; {cpu[1]:.1f} us of CPU each, "
            f"{cpu[0]:.1f} us without; {decisions / writes:.1f} decisions a write of "
            f"{1e3 * took / writes:.2f} ms"
        )
        recorded, raw = (statistics.median(around[client]) for client in ("recorded", "raw"))
        yield Row(
            "the ledger's part of a decryption", 100 * (recorded - raw) / cpu[1], "%", at_most=10,
            note=f"{recorded:.1f} us of CPU beside the crypto threads, {raw:.1f} us without",
        )
        # That is less than the ledger takes where I/O threads save by it: they answer more at once.
        own = statistics.median(alone["recorded"])
        yield Row(
            "the same, by the ledger's thread alone", 100 * own / cpu[1], "%", at_most=10,
            note=f"{own:.1f} us of CPU",
        )
        yield Row(
            "RSA-2048 decrypt-compatible, of decrypt-raw", 100 * rate[1] / rate[0], "%",
            at_least=90, note=beside,
        )
        yield Row("RSA-2048 decrypt with the ledger", rate[1], "/s", at_least=10_000)


@scenario("structured-cost", "signatures over TLS strings that the server parses, beside those over digests")
def structured_cost(machine):
    with world(clients=()) as made:
        made.add_client("edge", ("sign-digest", "tls12-sign", "tls13-sign"))
        with machine.server(made) as server:
            for digest, structured in (("p256", "tls13-p256"), ("rsa2048", "tls12-rsa2048")):

                def run(mix):
                    options = closed(16, 16, mix)
                    return Load(machine, server, "edge", *options, seconds=2).result()

                cpu, rate = medians(lambda: run(digest), lambda: run(structured))
                yield Row(
                    f"{structured}, of {digest}: CPU time", 100 * cpu[1] / cpu[0], "%",
                    at_most=103,
                    note=f"{cpu[1]:.2f} and {cpu[0]:.2f} us each; {number(rate[1])}/s and "
                    f"{number(rate[0])}/s",
                )
