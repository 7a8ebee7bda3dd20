"""The scenarios of edges.

Full handshakes of one nginx worker, with its key in a file, and with its key on the server:

    core of the load:    nginx, alone
    core of the server:  the handshakes' clients, and for the second measurement the key server,
                         before which the clients always step back (SCHED_IDLE)

And what the clients of the library add to the time of a signature. What is compared takes turns, so
that what else the machine does falls on all alike.
"""

import json
import os
import statistics
import subprocess
from contextlib import contextmanager
from pathlib import Path

from processes import ROOT, TICKS_PER_SECOND, Failure
from scenarios import Row, number, scenario, wait_for, world
from world import free_port

TURNS = 3
SECONDS = 5
#: Connections at once. nginx always has a handshake to go on with.
THREADS = 12


class Nginx:
    """One worker, pinned, without sessions to resume."""

    def __init__(self, machine, made, name, key, module=None):
        self.port = free_port()
        self.pid_file = made.path(f"nginx-{name}.pid")
        engine = "ssl_engine pkcs11;\nenv OPENSSL_CONF;\nenv KEYSERVER_PKCS11_CONFIG;\n"
        folders = "".join(
            f"{folder}_temp_path {made.path(folder)};\n"
            for folder in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config = made.path(f"nginx-{name}.conf")
        config.write_text(
            f"daemon off;\nworker_processes 1;\npid {self.pid_file};\nerror_log stderr;\n"
            f"{engine if module else ''}"
            f"events {{ worker_connections 1024; }}\nhttp {{\naccess_log off;\n{folders}"
            "ssl_session_cache off;\nssl_session_tickets off;\nssl_protocols TLSv1.3;\n"
            f"server {{\nlisten 127.0.0.1:{self.port} ssl;\n"
            f"ssl_certificate {made.path('site.pem')};\nssl_certificate_key \"{key}\";\n"
            'location / { return 200 "served from the edge"; }\n}\n}\n'
        )
        environment = {**os.environ, "KEYSERVER_PKCS11_CONFIG": str(made.path("pkcs11.toml")),
                       "OPENSSL_CONF": str(made.path("openssl.cnf"))} if module else None
        self.log = made.path(f"nginx-{name}.log")
        with open(self.log, "wb") as log:
            self.process = machine.spawn(
                machine.load_core, ["nginx", "-e", "stderr", "-c", config],
                stdout=log, stderr=subprocess.STDOUT, env=environment,
            )

    def cpu_seconds(self):
        """User and system time of the worker."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        fields = Path(f"/proc/{children.split()[0]}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND

    def stop(self):
        self.process.terminate()
        self.process.wait()


@contextmanager
def nginx(machine, made, name, key, module=None):
    proxy = Nginx(machine, made, name, key, module)
    try:
        wait_for(lambda: proxy.pid_file.exists() or proxy.process.poll() is not None, 10)
        if proxy.process.poll() is not None:
            raise Failure(f"nginx ended:\n{proxy.log.read_text()}")
        yield proxy
    finally:
        proxy.stop()


def measure(machine, program, made, proxy):
    """Handshakes per second, and per second of the worker's CPU time."""
    process = machine.spawn(
        machine.server_core,
        ["chrt", "--idle", 0, program, made.path("pki/ca.pem"), f"127.0.0.1:{proxy.port}",
         THREADS, SECONDS],
        stdout=subprocess.PIPE, text=True,
    )
    with process.stdout as output:
        output.readline()
        spent = proxy.cpu_seconds()
        result = output.readline()
        spent = proxy.cpu_seconds() - spent
    process.wait()
    if not result:
        raise Failure("the handshakes' client ended early")
    result = json.loads(result)
    if result["failed"] or not result["handshakes"]:
        raise Failure(f"handshakes failed: {result}\n{proxy.log.read_text()[-2000:]}")
    return result["handshakes"] / result["seconds"], result["handshakes"] / spent


def built(machine, path, what):
    """A file in the target directory, up to date."""
    path = machine.keyserver.parents[1] / path
    command = ["cargo", "build", "--locked", *what.split()]
    if machine.builds:
        subprocess.run(command, cwd=ROOT, check=True)
    if not path.exists():
        raise Failure(f"{path} is missing: {' '.join(command)}")
    return path


def example(machine, name):
    return built(machine, f"release/examples/{name}", f"--release -p loadgen --example {name}")


def compare(machine, name, what, *kind):
    # The module as it is shipped.
    module = built(
        machine, "c-abi/libkeyserver_pkcs11.so", "--profile c-abi -p keyserver-pkcs11"
    )
    program = example(machine, "handshakes")
    with world(rsa=False, p256=0) as made:
        key = made.add_site(name, *kind)
        with machine.server(made) as server:
            made.write_module_config(module, server.port)
            remote = f"engine:pkcs11:pkcs11:object={name};type=private"
            figures = {"file": [], "module": []}
            with nginx(machine, made, "file", key) as file_proxy, \
                    nginx(machine, made, "module", remote, module) as module_proxy:
                for _ in range(TURNS):
                    figures["file"].append(measure(machine, program, made, file_proxy))
                    figures["module"].append(measure(machine, program, made, module_proxy))
    wall, cpu = (
        {where: statistics.median(turn[column] for turn in turns)
         for where, turns in figures.items()}
        for column in (0, 1)
    )
    yield Row(
        f"nginx worker, {what}: of its handshakes with a key in a file",
        100 * wall["module"] / wall["file"], "%", at_least=60,
        note=f"{number(wall['module'])}/s of {number(wall['file'])}/s; per second of the worker's "
        f"CPU time {number(cpu['module'])} of {number(cpu['file'])}",
    )


@scenario("nginx-p256", "handshakes of one nginx worker through the module, P-256")
def p256(machine):
    kind = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    return compare(machine, "p256", "P-256", *kind)


@scenario("nginx-rsa2048", "the same with RSA-2048")
def rsa2048(machine):
    kind = ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
    return compare(machine, "rsa2048", "RSA-2048", *kind)


@scenario("client-latency", "what the Rust clients add to the time of a signature")
def client_latency(machine):
    program = example(machine, "client_latency")
    with world(rsa=False) as made, machine.server(made) as server:
        process = machine.spawn(
            machine.load_core,
            [program, f"127.0.0.1:{server.port}", "localhost", made.path("pki/ca.pem"),
             made.path("pki/edge.pem"), made.path("pki/edge-key.pem")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        output, errors = process.communicate()
        if process.returncode:
            raise Failure(f"client_latency: {errors}")
        medians = json.loads(output)
        own = 1000 * server.durations("total").quantile_ms(0.5)
    floor = medians.pop("by hand")
    for client, median in medians.items():
        yield Row(
            f"{client}: more than a connection driven by hand", median - floor, "us p50",
            at_most=60, note=f"a P-256 signature in {median} us, by hand in {floor} us, of which "
            f"{own:.0f} us from admission to reply, the rest TLS, loopback and waking threads",
        )
