"""The scenarios of keys in tokens, on SoftHSM: what the whole server gets out of a module, what a
slot that hangs does to the other keys, and whether a device's own limit is found.

The token's key is of another type than the keys in files, so that the mix of a load picks one kind
or the other. Faults are those of the module in tests/pkcs11-shim, which stands before SoftHSM.
"""

import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from processes import Failure, Load, background
from scenarios import Row, closed, number, open_loop, scenario, world

SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "73915028461937"


class Token:
    """A token of SoftHSM with one key in it, in the directory of a world."""

    def __init__(self, made, kind, label):
        if not SOFTHSM.exists():
            raise Failure(f"{SOFTHSM} is missing (Debian: softhsm2 opensc)")
        self.made, self.label = made, label
        made.path("tokens").mkdir()
        self.configuration = made.path("softhsm2.conf")
        self.configuration.write_text(
            f"directories.tokendir = {made.path('tokens')}\n"
            "objectstore.backend = file\nlog.level = ERROR\n"
        )
        made.path("pin").write_text(PIN)
        self._run("softhsm2-util", "--init-token", "--free", "--label", "perf",
                  "--so-pin", PIN, "--pin", PIN)
        self._run("pkcs11-tool", "--module", SOFTHSM, "--token-label", "perf", "--login",
                  "--pin", PIN, "--keypairgen", "--key-type", kind, "--label", label, "--id", "01")

    def _run(self, *command):
        done = subprocess.run(list(map(str, command)), env=self.environment(),
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise Failure(f"{command[0]}: {done.stdout}{done.stderr}")

    def environment(self):
        return {**os.environ, "SOFTHSM2_CONF": str(self.configuration)}

    def shim(self, machine):
        """The module that fails on demand, in the token's directory."""
        built = machine.keyserver.parent / "libpkcs11_shim.so"
        if not built.exists():
            raise Failure(f"{built} is missing: cargo build --release -p pkcs11-shim")
        module = self.made.path("shim.so")
        module.write_bytes(built.read_bytes())
        module.with_suffix(".conf").write_text(
            f"module={SOFTHSM}\nsocket={self.made.path('shim.sock')}\n"
            f"env SOFTHSM2_CONF={self.configuration}"
        )
        return module

    def tell(self, command):
        """Tells the shim what to do."""
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(str(self.made.path("shim.sock")))
            stream.sendall(f"{command}\n".encode())
            answer = stream.makefile().readline().strip()
        if answer != "ok":
            raise Failure(f"the shim answers {command!r} with {answer!r}")

    def config(self, module, **settings):
        """The lines of keyserver.toml for the key behind `module`."""
        lines = [
            "[[keys]]", f'uri = "pkcs11:token=perf;object={self.label}?module-path={module}"',
            f'pin_source = "file:{self.made.path("pin")}"', "dual_use_until = 2099-12-31", "[pkcs11]",
        ]
        return "\n".join([*lines, *(f"{name} = {value}" for name, value in settings.items())])


# ---- throughput ------------------------------------------------------------------------------


@scenario("hsm-throughput", "RSA-2048 in SoftHSM: the whole server beside a bare loop, per core-second")
def throughput(machine):
    with world(rsa=False, p256=0) as made:
        token = Token(made, "rsa:2048", "rsa")
        # The module reads its environment; the server's core runs it in both cases.
        os.environ["SOFTHSM2_CONF"] = str(token.configuration)
        ratios, notes = [], []
        for _ in range(2):
            bare = bare_loop(machine, token)
            with machine.server(made, extra=token.config(SOFTHSM, sessions=4)) as server:
                load = Load(machine, server, "edge", *closed(4, 8, "rsa2048"), seconds=5)
                served = load.result().per_core_second
            ratios.append(served / bare)
            notes.append(f"{number(served)} of {number(bare)}")
        yield Row(
            "RSA-2048 in SoftHSM, whole server / bare loop", statistics.median(ratios), "",
            at_least=0.9, note=f"per core-second: {', '.join(notes)}; every result verified",
        )


def bare_loop(machine, token):
    """Signatures per CPU second of threads that do nothing but sign."""
    command = [sys.executable, __file__, "bare", SOFTHSM, token.label]
    loop = machine.spawn(
        machine.server_core, command, env=token.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    output, errors = loop.communicate()
    if loop.returncode != 0:
        raise Failure(f"the bare loop: {errors}")
    made, cpu = output.split()
    return int(made) / float(cpu)


# ---- a slot that hangs -----------------------------------------------------------------------


@scenario("hsm-hang", "P-256 in files while a slot hangs: 99th percentile beside that of quiet times")
def hang(machine):
    with world(rsa=False) as made:
        token = Token(made, "rsa:2048", "rsa")
        extra = token.config(token.shim(machine), sessions=4, deadline='"500ms"')
        with machine.server(made, extra=extra) as server:
            quiet, hung = [], []
            for _ in range(3):
                quiet.append(files_p99(machine, server))
                token.tell("hang C_Sign *")
                asked = open_loop(200, 2, 64, "rsa2048")
                with background(Load(machine, server, "edge", *asked, seconds=60)):
                    time.sleep(1)
                    hung.append(files_p99(machine, server))
                    stuck = server.metric("keyserver_hsm_stuck_threads")
                token.tell("release")
                time.sleep(2)
            ratio = statistics.median(hung) / statistics.median(quiet)
            yield Row(
                "p99 of P-256 in a file, a slot hangs / quiet", ratio, "", at_most=1.1,
                note=f"{min(quiet):.3g}-{max(quiet):.3g} ms quiet, {min(hung):.3g}-{max(hung):.3g} ms "
                f"with 200/s for the slot, {stuck:.0f} threads stuck",
            )


def files_p99(machine, server):
    load = Load(machine, server, "edge", *open_loop(5000, 4, 64, "p256"), seconds=5)
    return load.result().percentile_ms("p99")


# ---- the limit of a device -------------------------------------------------------------------


@scenario("hsm-limit", "a device of 5 ms that runs 16 at a time: what the server gets out of it")
def limit(machine):
    with world(rsa=False, p256=0) as made:
        token = Token(made, "EC:prime256v1", "p256")
        extra = token.config(token.shim(machine), sessions=64)
        with machine.server(made, extra=extra) as server:
            token.tell("latency C_Sign 5000")
            token.tell("width 16")
            # The limit is found under load.
            Load(machine, server, "edge", *closed(4, 16, "p256"), seconds=15).result()
            measured = Load(machine, server, "edge", *closed(4, 16, "p256"), seconds=8)
            time.sleep(5)
            found = server.metric("keyserver_hsm_limit")
            result = measured.result()
            p99 = slot_p99_ms(server)
        yield Row(
            "device of 16 x 5 ms, answers", result.answered, "/s", at_least=0.95 * 3200,
            note=f"limit found {found:.0f}, from 64",
        )
        yield Row("device of 16 x 5 ms, p99 in the device", p99, "ms", at_most=10)


def slot_p99_ms(server):
    for line in server._get("/metrics").splitlines():
        if line.startswith("keyserver_hsm_latency_seconds{") and 'quantile="0.99"' in line:
            return 1e3 * float(line.rsplit(" ", 1)[1])
    raise Failure("the server shows no slot")


# ---- the bare loop, as a process of its own ----------------------------------------------------


def bare(module, label, threads=4, seconds=4):
    """Signs with CKM_RSA_PKCS from several threads; prints how often, and the CPU time it took.

    Foreign calls release Python's lock, and Python adds about 2 us to a signature of 500.
    """
    import ctypes
    import threading

    library = ctypes.CDLL(module)
    number_type = ctypes.c_ulong

    def check(code):
        if code != 0:
            raise RuntimeError(f"the module returns {code:#x}")

    class Attribute(ctypes.Structure):
        _fields_ = [("kind", number_type), ("value", ctypes.c_void_p), ("length", number_type)]

    class Mechanism(ctypes.Structure):
        _fields_ = [("kind", number_type), ("value", ctypes.c_void_p), ("length", number_type)]

    class Arguments(ctypes.Structure):
        _fields_ = [(name, ctypes.c_void_p) for name in ("a", "b", "c", "d")] + [
            ("flags", number_type), ("reserved", ctypes.c_void_p)]

    # CKF_OS_LOCKING_OK.
    check(library.C_Initialize(ctypes.byref(Arguments(flags=2))))
    slots, count = (number_type * 8)(), number_type(8)
    check(library.C_GetSlotList(ctypes.c_ubyte(1), slots, ctypes.byref(count)))

    def session():
        handle = number_type()
        # CKF_SERIAL_SESSION.
        check(library.C_OpenSession(number_type(slots[0]), number_type(4), None, None,
                                    ctypes.byref(handle)))
        return handle

    keeper = session()
    check(library.C_Login(keeper, number_type(1), PIN.encode(), number_type(len(PIN))))
    kind = number_type(3)  # CKO_PRIVATE_KEY
    name = ctypes.create_string_buffer(label.encode(), len(label))
    template = (Attribute * 2)(
        Attribute(0, ctypes.cast(ctypes.byref(kind), ctypes.c_void_p), ctypes.sizeof(kind)),
        Attribute(3, ctypes.cast(name, ctypes.c_void_p), len(label)),
    )
    check(library.C_FindObjectsInit(keeper, template, number_type(2)))
    key, found = number_type(), number_type()
    check(library.C_FindObjects(keeper, ctypes.byref(key), number_type(1), ctypes.byref(found)))
    check(library.C_FindObjectsFinal(keeper))
    if found.value != 1:
        raise RuntimeError("there is no such key")
    end, counts = time.monotonic() + seconds, []

    def sign():
        own, output, made = session(), ctypes.create_string_buffer(512), 0
        mechanism, digest = Mechanism(1, None, 0), b"\x01" * 51
        while time.monotonic() < end:
            length = number_type(512)
            check(library.C_SignInit(own, ctypes.byref(mechanism), key))
            check(library.C_Sign(own, digest, number_type(len(digest)), output,
                                 ctypes.byref(length)))
            made += 1
        counts.append(made)

    begun = time.process_time()
    workers = [threading.Thread(target=sign) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(sum(counts), time.process_time() - begun)


if __name__ == "__main__":
    _, _, wanted_module, wanted_label = sys.argv
    bare(wanted_module, wanted_label)
