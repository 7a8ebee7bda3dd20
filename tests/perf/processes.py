"""The server and the load generators as processes, each on its core, and what the kernel says
about them."""

import json
import os
import resource
import signal
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Failure(Exception):
    """The scenario could not be measured."""


class Machine:
    """Which binaries run where."""

    def __init__(self, server_core, load_core, builds=True):
        self.builds = builds
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        self.keyserver = target / "release/keyserver"
        self.loadgen = target / "release/loadgen"
        self.server_core = server_core
        self.load_core = load_core
        self.overload_seconds = 60
        # Ten thousand connections are ten thousand descriptors.
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    @contextmanager
    def server(self, world, **config):
        """A server, until the block ends."""
        server = Server(self, world, **config)
        try:
            server.wait_until_ready()
            yield server
        finally:
            server.stop()

    def spawn(self, core, command, **kinds):
        command = ["taskset", "-c", str(core), *map(str, command)]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, **kinds)


class Server:
    """A running `keyserver run`."""

    def __init__(self, machine, world, **config):
        self.machine, self.world = machine, world
        path, self.port, self.metrics_port = world.write_config(**config)
        self.log = world.path("server.log")
        self.began = time.monotonic()
        with open(self.log, "wb") as log:
            self.process = machine.spawn(
                machine.server_core, [machine.keyserver, "run", "--config", path],
                stdout=log, stderr=subprocess.STDOUT,
            )
        self.pid = self.process.pid

    def wait_until_ready(self, limit=120):
        """Waits for /readyz; `start_seconds` then says how long it took."""
        while time.monotonic() - self.began < limit:
            if self.process.poll() is not None:
                raise Failure(f"the server ended:\n{self.log.read_text()}")
            try:
                self._get("/readyz")
                self.start_seconds = time.monotonic() - self.began
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.01)
        raise Failure(f"the server is not ready after {limit} s:\n{self.log.read_text()}")

    def metric(self, name):
        """The sum of a metric's samples."""
        total = 0.0
        for line in self._get("/metrics").splitlines():
            if line.startswith((name + " ", name + "{")):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def durations(self, stage):
        """The histogram of the time that requests spent in a stage."""
        buckets = {}
        for line in self._get("/metrics").splitlines():
            if line.startswith("keyserver_request_duration_seconds_bucket{") and stage in line:
                bound = line.split('le="')[1].split('"')[0]
                buckets[float(bound)] = float(line.rsplit(" ", 1)[1])
        return Durations(buckets)

    def _get(self, path):
        url = f"http://127.0.0.1:{self.metrics_port}{path}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()

    def resident_bytes(self):
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def cpu_seconds(self):
        """User and system time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Durations:
    """A histogram: for each upper bound in seconds, how many took no longer."""

    def __init__(self, buckets):
        self.buckets = buckets

    def since(self, before):
        """What was added after `before`."""
        return Durations(
            {bound: count - before.buckets[bound] for bound, count in self.buckets.items()}
        )

    def quantile_ms(self, quantile):
        """Read off a straight line between the bounds."""
        wanted = quantile * self.buckets[float("inf")]
        below, under = 0.0, 0.0
        for bound, count in sorted(self.buckets.items()):
            if count >= wanted and count > under:
                if bound == float("inf"):
                    return 1e3 * below
                return 1e3 * (below + (bound - below) * (wanted - under) / (count - under))
            below, under = bound, count
        raise Failure("no request was answered")


class Load:
    """A running `loadgen run`."""

    def __init__(self, machine, server, client, *options, seconds, warmup=1):
        world = server.world
        self.name = f"{client}: {' '.join(map(str, options))}"
        self.process = machine.spawn(
            machine.load_core,
            [
                machine.loadgen, "run", "--target", f"127.0.0.1:{server.port}",
                "--server-name", "localhost", "--ca", world.path("pki/ca.pem"),
                "--cert", world.path(f"pki/{client}.pem"),
                "--key", world.path(f"pki/{client}-key.pem"), "--server-pid", server.pid,
                "--format", "json", "--no-progress", "--fail-on", "never",
                "-w", f"{warmup}s", "-d", f"{seconds}s", *options,
            ],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )

    def result(self):
        """Waits for the end and returns what was measured."""
        output, errors = self.process.communicate()
        if not output:
            raise Failure(f"loadgen {self.name}: {errors.decode()}")
        return Result(json.loads(output))

    def stop(self):
        """Ends it without a result, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@contextmanager
def background(load):
    """A load that goes on beside the measured one and is ended with the block."""
    try:
        yield load
    finally:
        load.stop()


class Result:
    """A document of the load generator."""

    def __init__(self, document):
        self.document = document
        self.result = document["result"]
        if self.result["wrong_signatures"]:
            raise Failure("wrong answers")

    @property
    def answered(self):
        """Right answers per second."""
        return self.result["achieved"]

    @property
    def per_core_second(self):
        """Right answers per second of the server's CPU time."""
        return self.result["server_cpu"]["operations_per_core_second"]

    @property
    def cpu_us(self):
        """Microseconds of the server's CPU time per answer."""
        return self.result["server_cpu"]["us_per_operation"]

    @property
    def errors(self):
        """Failed requests by kind."""
        return self.result["errors"]

    def percentile_ms(self, which, clock="service"):
        """`which` is p50, p90, p99, p999, p9999 or max."""
        latency = self.result["latency"][clock]
        if not latency["count"]:
            raise Failure("no request was answered")
        return latency[which] / 1e6
