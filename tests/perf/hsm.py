"""The scenarios of keys in tokens, on SoftHSM: what the whole server gets out of a module, what a
slot that hangs does to the other keys, and whether a device's own limit is found.

The token's key is of another type than the keys in files, so that the mix of a load picks one kind
or the other. Faults are those of the module in tests/pkcs11-shim, which stands before SoftHSM.
"""

import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
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
        self.made, self.label, self.directory = made, label, made.path(f"token-{label}")
        self.directory.mkdir()
        (self.directory / "tokens").mkdir()
        self.configuration = self.directory / "softhsm2.conf"
        self.configuration.write_text(
            f"directories.tokendir = {self.directory / 'tokens'}\n"
            "objectstore.backend = file\nlog.level = ERROR\n"
        )
        self.pin = self.directory / "pin"
        self.pin.write_text(PIN)
        self.pin.chmod(0o600)
        self._run("softhsm2-util", "--init-token", "--free", "--label", label,
                  "--so-pin", PIN, "--pin", PIN)
        self._run("pkcs11-tool", "--module", SOFTHSM, "--token-label", label, "--login",
                  "--pin", PIN, "--keypairgen", "--key-type", kind, "--label", label, "--id", "01")

    def _run(self, *command):
        done = subprocess.run(list(map(str, command)), env=self.environment(),
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise Failure(f"{command[0]}: {done.stdout}{done.stderr}")

    def environment(self):
        return {**os.environ, "SOFTHSM2_CONF": str(self.configuration)}

    def shim(self, machine, *commands, name="shim"):
        """A module that fails on demand, before a copy of SoftHSM, in the token's directory. What it is to
        do from the start may be given."""
        built = machine.keyserver.parent / "libpkcs11_shim.so"
        if not built.exists():
            raise Failure(f"{built} is missing: cargo build --release -p pkcs11-shim")
        real, module = self.directory / f"{name}-softhsm.so", self.directory / f"{name}.so"
        real.write_bytes(SOFTHSM.read_bytes())
        module.write_bytes(built.read_bytes())
        module.with_suffix(".conf").write_text(
            f"module={real}\nsocket={self.directory / f'{name}.sock'}\n"
            f"env SOFTHSM2_CONF={self.configuration}"
            + "".join(f"\ndo={command}" for command in commands)
        )
        return module

    def tell(self, command):
        """Tells the shim what to do."""
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(str(self.directory / "shim.sock"))
            stream.sendall(f"{command}\n".encode())
            answer = stream.makefile().readline().strip()
        if answer != "ok":
            raise Failure(f"the shim answers {command!r} with {answer!r}")

    def key(self, module):
        """The lines of keyserver.toml for the key behind `module`."""
        uri = f"pkcs11:token={self.label};object={self.label}?module-path={module}"
        return (
            f'[[keys]]\nuri = "{uri}"\npin_source = "file:{self.pin}"\n'
            "dual_use_until = 2099-12-31\n"
        )


def settings(**values):
    """The table of keyserver.toml for all slots."""
    return "\n".join(["[pkcs11]", *(f"{name} = {value}" for name, value in values.items())])


# ---- throughput ------------------------------------------------------------------------------

CKM_RSA_PKCS, CKM_RSA_PKCS_PSS, CKM_ECDSA = 0x0001, 0x000D, 0x1041

#: Threads of the bare loops; the fastest is what the server is held to.
BARE_THREADS = (1, 2, 4)


@scenario("hsm-throughput", "RSA-2048 in SoftHSM: the whole server beside a bare loop, per core-second")
def throughput(machine):
    with world(rsa=False, p256=0) as made:
        token = Token(made, "rsa:2048", "rsa")
        # The module reads its environment.
        os.environ["SOFTHSM2_CONF"] = str(token.configuration)
        # As many sessions as cores, which is what SoftHSM is best used with, and room for all requests.
        suited = settings(sessions=1, queue=64)
        yield from throughput_in_turns(
            machine, made, token, ("pkcs1", CKM_RSA_PKCS), suited, "over one session")
        yield from throughput_in_turns(
            machine, made, token, ("pss", CKM_RSA_PKCS_PSS), settings(sessions=4), "over four sessions")
        yield from throughput_as_asked(machine, made, token)


def throughput_in_turns(machine, made, token, operation, use, how):
    """The same operation on both sides, by threads on both sides."""
    padding, mechanism = operation
    with ExitStack() as stack:
        server = stack.enter_context(machine.server(made, extra=token.key(SOFTHSM) + use))
        options = [*closed(4, 8, "rsa2048"), "--pad", padding]
        stack.enter_context(background(Load(machine, server, "edge", *options, seconds=120)))
        bare = [
            stack.enter_context(bare_loop(machine, token, SOFTHSM, mechanism, count))
            for count in BARE_THREADS
        ]
        served = Turn(server.pid, lambda: server.metric("keyserver_hsm_operations_total"))
        for turn in (served, *bare):
            turn.stand_still()
        # One runs while the others stand still, on the same core, and they change often: what else goes
        # on in the machine meets all of them.
        rounds = [[turn.rate() for turn in (served, *bare)] for _ in range(12)]
        ratios = [
            statistics.median(one[0] / one[at] for one in rounds[1:])
            for at in range(1, len(bare) + 1)
        ]
        rates = [number(statistics.median(column)) for column in zip(*rounds[1:])]
        yield Row(
            f"RSA-2048 with {padding} in SoftHSM {how}, whole server / bare loop", min(ratios), "",
            at_least=0.9,
            note=f"per core-second {rates[0]}; bare, with {BARE_THREADS} threads, "
            f"{', '.join(rates[1:])}; every result verified",
        )


def throughput_as_asked(machine, made, token):
    """PSS, which clients ask for unless told otherwise, over four sessions, beside four threads that make the
    cheaper signatures of PKCS#1 v1.5. What is counted are answers."""
    ratios, notes = [], []
    for _ in range(2):
        with bare_loop(machine, token, SOFTHSM, CKM_RSA_PKCS, 4) as bare:
            gives = bare.rate(4)
        with machine.server(made, extra=token.key(SOFTHSM) + settings(sessions=4)) as server:
            load = Load(machine, server, "edge", *closed(4, 8, "rsa2048"), seconds=5)
            served = load.result().per_core_second
        ratios.append(served / gives)
        notes.append(f"{number(served)} of {number(gives)}")
    yield Row(
        "RSA-2048 in SoftHSM, whole server with PSS and four sessions / bare loop with PKCS#1",
        statistics.median(ratios), "", at_least=0.9,
        note=f"per core-second: {', '.join(notes)}; every result verified",
    )


class Turn:
    """A process that stands still except when it is its turn, and counts what it does."""

    def __init__(self, pid, count):
        self.pid, self.count = pid, count
        # The clock of a process's CPU time, see clock_getcpuclockid(3).
        self.clock = (~pid << 3) | 2

    def stand_still(self):
        """Until it is its turn. Not before all others have begun: SoftHSM locks files, and one that is stopped with such
        a lock keeps others from opening the token."""
        os.kill(self.pid, signal.SIGSTOP)

    def rate(self, seconds=0.4, clock=None):
        """Operations per second of its CPU time, or of another clock, in a turn of this length."""
        clock = self.clock if clock is None else clock
        os.kill(self.pid, signal.SIGCONT)
        try:
            time.sleep(0.05)
            count, began = self.count(), time.clock_gettime(clock)
            time.sleep(seconds)
            return (self.count() - count) / (time.clock_gettime(clock) - began)
        finally:
            self.stand_still()


@contextmanager
def bare_loop(machine, token, module, mechanism, threads):
    """Threads that do nothing but sign, as a process that takes turns."""
    counter = token.directory / f"bare-{threads}"
    counter.write_bytes(bytes(8 * threads))
    command = [sys.executable, __file__, "bare", module, token.label, mechanism, counter]
    loop = machine.spawn(
        machine.server_core, command, env=token.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    try:
        if loop.stdout.readline() != "signing\n":
            raise Failure(f"the bare loop: {loop.communicate()[1]}")
        yield Turn(loop.pid, lambda: sum(struct.unpack(f"{threads}Q", counter.read_bytes())))
    finally:
        loop.kill()
        loop.communicate()


# ---- a slot that hangs -----------------------------------------------------------------------

#: Windows before, during and after the hang, and their length in seconds.
WINDOWS, WINDOW = (4, 7, 4), 4


@scenario("hsm-hang", "keys in files and in another slot while a slot hangs for 30 s: p99 beside quiet times")
def hang(machine):
    yield from hang_under_equal_load(machine)
    yield from hang_beside_idle_slot(machine)


def hang_under_equal_load(machine):
    """The slot is asked as much in quiet times as when it hangs."""
    with world(rsa=False) as made, ExitStack() as stack:
        hung, well = Token(made, "EC:edwards25519", "hung"), Token(made, "EC:secp384r1", "well")
        extra = "".join(token.key(token.shim(machine)) for token in (hung, well))
        extra += settings(sessions=4, deadline='"500ms"', call_timeout='"2s"')
        server = stack.enter_context(machine.server(made, extra=extra))
        asked = open_loop(200, 2, 64, "ed25519")
        stack.enter_context(background(Load(machine, server, "edge", *asked, seconds=120)))
        quiet, meanwhile = ([], []), ([], [])
        for number, windows in enumerate(WINDOWS):
            if number == 1:
                began = time.monotonic()
                hung.tell("hang C_Sign *")
                time.sleep(1)
            into = meanwhile if number == 1 else quiet
            for _ in range(windows):
                for all_of, p99 in zip(into, both_p99(machine, server)):
                    all_of.append(p99)
            if number == 1:
                stuck = server.metric("keyserver_hsm_stuck_threads")
                up = server.metric("keyserver_hsm_up")
                lasted = time.monotonic() - began
                hung.tell("release")
                time.sleep(2)
        for what, before, during in zip(("P-256 in a file", "P-384 in another slot"), quiet, meanwhile):
            yield Row(
                f"p99 of {what}, a slot hangs / quiet",
                statistics.median(during) / statistics.median(before), "", at_most=1.1,
                note=f"windows of {WINDOW} s: {number_range(before)} ms quiet, {number_range(during)} ms in "
                f"{lasted:.0f} s with 200/s for the slot, {stuck:.0f} threads stuck, {up:.0f} of 2 slots up",
            )


def hang_beside_idle_slot(machine):
    """Nobody asks for the slot in quiet times: its load counts as part of the hang."""
    with world(rsa=False) as made:
        token = Token(made, "rsa:2048", "rsa")
        extra = token.key(token.shim(machine)) + settings(sessions=4, deadline='"500ms"')
        with machine.server(made, extra=extra) as server:
            quiet, hung = [], []
            for _ in range(3):
                quiet.append(file_p99(machine, server))
                token.tell("hang C_Sign *")
                asked = open_loop(200, 2, 64, "rsa2048")
                with background(Load(machine, server, "edge", *asked, seconds=60)):
                    time.sleep(1)
                    hung.append(file_p99(machine, server))
                    stuck = server.metric("keyserver_hsm_stuck_threads")
                token.tell("release")
                time.sleep(2)
        yield Row(
            "p99 of P-256 in a file, a slot is asked and hangs / quiet",
            statistics.median(hung) / statistics.median(quiet), "", at_most=1.1,
            note=f"{number_range(quiet)} ms quiet, {number_range(hung)} ms with 200/s for the slot, "
            f"{stuck:.0f} threads stuck",
        )


def number_range(values):
    return f"{min(values):.3g}, {statistics.median(values):.3g}, {max(values):.3g}"


def both_p99(machine, server):
    """What clients of a key in a file, and those of a key in the slot that works, see in a window."""
    loads = [
        Load(machine, server, "edge", *open_loop(rate, 4, 64, mix), seconds=WINDOW, warmup=0.5)
        for rate, mix in ((4000, "p256"), (100, "p384"))
    ]
    return [load.result().percentile_ms("p99") for load in loads]


def file_p99(machine, server):
    load = Load(machine, server, "edge", *open_loop(5000, 4, 64, "p256"), seconds=5)
    return load.result().percentile_ms("p99")


# ---- the limit of a device -------------------------------------------------------------------


@scenario("hsm-limit", "a device of 5 ms that runs 16 at a time: what the server gets out of it")
def limit(machine):
    for start in (4, 64):
        with world(rsa=False, p256=0) as made, ExitStack() as stack:
            token = Token(made, "EC:prime256v1", "p256")
            device = ("latency C_Sign 5000", "width 16")
            extra = token.key(token.shim(machine, *device))
            extra += settings(sessions=64, start_limit=start)
            server = stack.enter_context(machine.server(made, extra=extra))
            # What the device itself gives, to 16 threads that do nothing but sign, on the same core.
            module = token.shim(machine, *device, name="bare")
            bare = stack.enter_context(bare_loop(machine, token, module, CKM_ECDSA, 16))
            gives = [bare.rate(3, time.CLOCK_MONOTONIC)]
            # The limit is found under load.
            Load(machine, server, "edge", *closed(4, 16, "p256"), seconds=12).result()
            measured = Load(machine, server, "edge", *closed(4, 16, "p256"), seconds=12)
            found, p99 = [], []
            time.sleep(2)
            for _ in range(10):
                time.sleep(1)
                found.append(server.metric("keyserver_hsm_limit"))
                p99.append(slot_p99_ms(server))
            result = measured.result()
            last_p99 = slot_p99_ms(server)
            gives.append(bare.rate(3, time.CLOCK_MONOTONIC))
            yield Row(
                f"device of 16 x 5 ms, from a limit of {start}: answers", result.answered, "/s",
                at_least=0.95 * 3200, note="of the 3,200 that it would give if no thread woke late",
            )
            yield Row(
                f"device of 16 x 5 ms, from a limit of {start}: answers",
                result.answered / statistics.mean(gives), "of what it gives", at_least=0.95,
                note=f"{number(result.answered)}/s of {number(min(gives))} to {number(max(gives))} "
                f"to 16 bare threads; limit found: {min(found):.0f} to {max(found):.0f}",
            )
            yield Row(
                f"device of 16 x 5 ms, from a limit of {start}: p99 in the device",
                statistics.median(p99), "ms", at_most=10,
                note=f"ten looks at the last 1,024 operations: {min(p99):.3g} to {max(p99):.3g}",
            )
            yield Row(
                f"device of 16 x 5 ms, from a limit of {start}: p99 in the device at the end",
                last_p99, "ms", at_most=10, note="one look at the last 1,024 operations",
            )
            looks = ", ".join(f"{look:.0f}" for look in found)
            yield Row(
                f"device of 16 x 5 ms, from a limit of {start}: the limit found", statistics.median(found),
                "", at_least=16, at_most=16, note=f"the middle one of ten looks: {looks}",
            )
            yield Row(
                f"device of 16 x 5 ms, from a limit of {start}: furthest from that",
                max(abs(look - 16) for look in found), "", at_most=1, note="of the same looks",
            )


def slot_p99_ms(server):
    for line in server._get("/metrics").splitlines():
        if line.startswith("keyserver_hsm_latency_seconds{") and 'quantile="0.99"' in line:
            return 1e3 * float(line.rsplit(" ", 1)[1])
    raise Failure("the server shows no slot")


# ---- the bare loop, as a process of its own ----------------------------------------------------


def bare(module, label, mechanism, counter):
    """Signs with a mechanism until it is ended, and counts in a file: a number of 64 bits a thread.

    Foreign calls release Python's lock, and Python adds about 2 us to a signature of 500.
    """
    import ctypes
    import mmap
    import threading

    number_type = ctypes.c_ulong
    # C_GetFunctionList gives a version, padded, and then the functions, in this order.
    functions = ctypes.POINTER(ctypes.c_void_p)()
    ctypes.CDLL(module).C_GetFunctionList(ctypes.byref(functions))

    class library:
        pass

    for at, name in (
        (0, "C_Initialize"), (4, "C_GetSlotList"), (12, "C_OpenSession"), (18, "C_Login"),
        (26, "C_FindObjectsInit"), (27, "C_FindObjects"), (28, "C_FindObjectsFinal"),
        (42, "C_SignInit"), (43, "C_Sign"),
    ):
        setattr(library, name, ctypes.CFUNCTYPE(number_type)(functions[1 + at]))

    def check(code):
        if code != 0:
            raise RuntimeError(f"the module returns {code:#x}")

    class Attribute(ctypes.Structure):
        _fields_ = [("kind", number_type), ("value", ctypes.c_void_p), ("length", number_type)]

    class Mechanism(ctypes.Structure):
        _fields_ = [("kind", number_type), ("value", ctypes.c_void_p), ("length", number_type)]

    class PssParameters(ctypes.Structure):
        _fields_ = [(name, number_type) for name in ("hash", "mgf", "salt_length")]

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
    wanted, kind = number_type(3), int(mechanism)  # CKO_PRIVATE_KEY
    name = ctypes.create_string_buffer(label.encode(), len(label))
    template = (Attribute * 2)(
        Attribute(0, ctypes.cast(ctypes.byref(wanted), ctypes.c_void_p), ctypes.sizeof(wanted)),
        Attribute(3, ctypes.cast(name, ctypes.c_void_p), len(label)),
    )
    check(library.C_FindObjectsInit(keeper, template, number_type(2)))
    key, found = number_type(), number_type()
    check(library.C_FindObjects(keeper, ctypes.byref(key), number_type(1), ctypes.byref(found)))
    check(library.C_FindObjectsFinal(keeper))
    if found.value != 1:
        raise RuntimeError("there is no such key")
    with open(counter, "r+b") as file:
        counts = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")

    def sign(at):
        own, output = session(), ctypes.create_string_buffer(512)
        # As long as a DigestInfo with SHA-256, or the hash alone.
        digest = b"\x01" * (51 if kind == 1 else 32)
        mechanism = Mechanism(kind, None, 0)
        if kind == CKM_RSA_PKCS_PSS:
            # CKM_SHA256 and CKG_MGF1_SHA256, and a salt as long as the hash.
            parameters = PssParameters(0x250, 2, 32)
            mechanism.value = ctypes.cast(ctypes.byref(parameters), ctypes.c_void_p)
            mechanism.length = ctypes.sizeof(parameters)
        while True:
            length = number_type(512)
            check(library.C_SignInit(own, ctypes.byref(mechanism), key))
            check(library.C_Sign(own, digest, number_type(len(digest)), output,
                                 ctypes.byref(length)))
            counts[at] += 1

    for at in range(len(counts)):
        threading.Thread(target=sign, args=(at,)).start()
    print("signing", flush=True)


if __name__ == "__main__":
    bare(*sys.argv[2:])
