"""Runs one suite of checks against a server: `run.py SUITE DIRECTORY HOST PORT CERTIFICATE`.

SUITE is a module beside this file; its functions named `check_...` run in order, each over TLS 1.2
and over TLS 1.3. DIRECTORY holds `pki/` and `keys/`; CERTIFICATE is the type of the server's, `ecdsa`
or `rsa`. Prints a line for each check, and exits with 1 when one failed.
"""

import importlib
import ssl
import sys
import time
import traceback

from world import World

VERSIONS = {"TLS 1.2": ssl.TLSVersion.TLSv1_2, "TLS 1.3": ssl.TLSVersion.TLSv1_3}


def main(suite, directory, host, port, certificate):
    module = importlib.import_module(suite)
    checks = [value for name, value in vars(module).items() if name.startswith("check_")]
    passed = failed = 0
    for name, version in VERSIONS.items():
        world = World(directory, (host, int(port)), version, certificate)
        for check in checks:
            if hasattr(check, "once") and passed + failed >= len(checks):
                continue
            label, start = f"{suite}.{check.__name__} over {name}", time.monotonic()
            try:
                check(world)
                passed += 1
                print(f"ok      {label} ({time.monotonic() - start:.2f} s)", flush=True)
            except Exception:
                failed += 1
                print(f"FAILED  {label}\n{traceback.format_exc()}", flush=True)
    print(f"{suite}: {passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
