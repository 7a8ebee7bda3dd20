"""The protocol's small print, line by line."""

import os
import ssl
import time

import keyless
from differences import first, in_flight
from keys import HASHES, digest_of
from keyless import OPCODE, PAYLOAD, PING, item
from world import NO_GRANT, SIGNER, UNKNOWN, expect_error, expect_output


def ping_items(payload=b""):
    return item(OPCODE, bytes([PING])) + (item(PAYLOAD, payload) if payload else b"")


def check_opcode_item_not_one_byte_long(world):
    for value in (b"", b"\0\xf1", b"\xf1\0", bytes(300)):
        with world.connect() as connection:
            expect_error(connection.ask_items(item(OPCODE, value)), keyless.FORMAT)
            connection.expect_close()


def check_known_tag_twice(world):
    for tag in (0x01, 0x02, 0x03, 0x04, 0x05, 0x06, *range(0x11, 0x18), 0x20, 0x30, 0x31, 0x32):
        size = {0x11: 1, 0x30: 4, 0x31: 2, 0x32: 0}.get(tag, 4)
        start = b"" if tag == OPCODE else item(OPCODE, bytes([PING]))
        twice = item(tag, bytes([PING]) * size) * 2
        with world.connect() as connection:
            expect_error(connection.ask_items(start + twice), keyless.FORMAT)
            connection.expect_close()


def check_no_opcode_item(world):
    """Error 5, and the connection stays."""
    with world.connect() as connection:
        for items in (b"", item(PAYLOAD, b"x"), item(0x77), b"\x11", b"\x11\0"):
            expect_error(connection.ask_items(items), keyless.BAD_OPCODE)
        connection.expect_alive()


def check_tolerated_oddities(world):
    """Unknown tags, also twice; any order; no padding or any padding; one or two trailing bytes."""
    strange = item(0x77, b"a") + item(0x77, b"b") + item(0xFE) * 3
    payload = item(PAYLOAD, b"tolerant")
    opcode = item(OPCODE, bytes([PING]))
    with world.connect() as connection:
        for items in (
            opcode + payload,
            payload + opcode,
            strange + payload + strange + opcode,
            opcode + payload + b"\0",
            opcode + payload + b"\x12\xff",
            opcode + payload + item(keyless.PADDING, os.urandom(5)),
            item(keyless.PADDING) + opcode + payload,
            opcode + payload + item(keyless.PADDING, bytes(60000)),
            opcode + payload + item(keyless.TRACE, b"\xff junk") + item(keyless.SNI, b"\xff"),
            opcode + payload + item(keyless.CLIENT_IP, b"odd") + item(keyless.REGION, b"eu"),
        ):
            answer = connection.ask_items(items)
            assert (answer.opcode, answer.payload) == (keyless.PONG, b"tolerant"), items[:40]


def check_all_zero_ski(world):
    """Counts as missing: error 2, or the digest decides."""
    key = first(world.rsa_keys(), "rsa-2048")
    digest = digest_of(3, b"message")
    with world.connect() as connection:
        expect_error(connection.ask(0x05, digest, bytes(20)), keyless.KEY_NOT_FOUND)
        more = item(keyless.DIGEST, key.modulus_digest)
        signature = expect_output(connection.ask(0x05, digest, bytes(20), more))
        key.verify_pkcs1(signature, digest, HASHES[3][2])


def check_rsa_decrypt_on_another_key_type(world):
    with world.connect() as connection:
        for key in (*world.ec_keys(), *world.ed25519_keys()):
            for opcode in (0x01, 0x08):
                for length in (32, 256):
                    answer = connection.ask(opcode, os.urandom(length), key.ski)
                    expect_error(answer, keyless.CRYPTO_FAILURE)


def check_ciphertexts_0_1_and_n_minus_1(world):
    """Error 1 each; 2 and n-2 are decrypted."""
    with world.connect() as connection:
        for key in world.rsa_keys():
            for opcode in (0x01, 0x08):
                for number in (0, 1, key.n - 1):
                    ciphertext = number.to_bytes(key.size, "big")
                    answer = connection.ask(opcode, ciphertext, key.ski)
                    expect_error(answer, keyless.CRYPTO_FAILURE)
                for number in (2, key.n - 2):
                    ciphertext = number.to_bytes(key.size, "big")
                    block = expect_output(connection.ask(opcode, ciphertext, key.ski))
                    assert key.raw_encrypt(int.from_bytes(block, "big")) == ciphertext


def check_ping_is_open_to_every_authenticated_client(world):
    for client in (NO_GRANT, UNKNOWN):
        with world.connect(client) as connection:
            answer = connection.ask(PING, b"hello")
            assert (answer.opcode, answer.payload) == (keyless.PONG, b"hello")


def refused(world, **context):
    """Whether the handshake fails, or the connection before its first answer."""
    try:
        with keyless.Connection(world.address, world.context(**context)) as connection:
            connection.ask(PING, b"let me in")
    except (ssl.SSLError, keyless.Closed, ConnectionError):
        return True
    return False


def check_who_may_connect(world):
    """A client certificate of the configured authority, for clients or for any use."""
    with world.connect("any-usage") as connection:
        connection.expect_alive()
    assert refused(world, client="server-usage"), "serverAuth only"
    assert refused(world, client="stranger"), "a certificate of another authority"
    assert refused(world, client="forged"), "our authority's name under another key"
    assert refused(world, client=None), "no certificate"
    with world.connect() as connection:
        connection.expect_alive()


def check_resumption(world):
    """TLS 1.2 tickets resume, as stock clients expect; who the client is stays as it was."""
    if world.version != ssl.TLSVersion.TLSv1_2:
        return
    key = first(world.ec_keys(), "p-256")
    digest = digest_of(3, b"message")
    for client in (SIGNER, NO_GRANT):
        tls, session = world.context(client), None
        for attempt in range(3):
            with keyless.Connection(world.address, tls, session) as connection:
                assert connection.tls.session_reused == (attempt > 0), f"attempt {attempt}"
                session = connection.tls.session
                answer = connection.ask(0x15, digest, key.ski)
                if client == SIGNER:
                    key.verify_ecdsa(expect_output(answer), digest, HASHES[3][2])
                else:
                    expect_error(answer, keyless.KEY_NOT_FOUND)


def check_replies_in_flight_after_close_notify(world):
    """The peer may say goodbye first and still gets everything it asked for."""
    key = first(world.rsa_keys(), "rsa-2048")
    with world.connect() as connection:
        wire, count, verify = in_flight(connection, key)
        connection.send(wire)
        connection.finish_tls()
        verify(connection.answers(count))
        connection.expect_close()


def check_replies_in_flight_after_fin(world):
    """The same when TCP ends without a word in TLS."""
    key = first(world.rsa_keys(), "rsa-2048")
    with world.connect() as connection:
        wire, count, verify = in_flight(connection, key)
        connection.send(wire)
        connection.finish_tcp()
        verify(connection.answers(count))
        connection.expect_close(clean=False)


def check_replies_in_flight_after_close_notify_and_fin(world):
    key = first(world.rsa_keys(), "rsa-2048")
    with world.connect() as connection:
        wire, count, verify = in_flight(connection, key)
        connection.send(wire)
        connection.finish_tls()
        connection.finish_tcp()
        verify(connection.answers(count))
        connection.expect_close()


def check_a_frame_cut_off_by_the_end(world):
    """Half a frame before goodbye is not answered; the whole ones before it are."""
    with world.connect() as connection:
        whole = keyless.request(1, PING, b"whole")
        connection.send(whole + keyless.request(2, PING, b"half")[:500])
        connection.finish_tls()
        assert connection.answer().payload == b"whole"
        connection.expect_close()


def check_one_record_per_byte(world):
    with world.connect() as connection:
        for byte in keyless.frame(5, ping_items(b"byte by byte")):
            connection.seal(bytes([byte]))
        connection.flush()
        assert connection.answer().payload == b"byte by byte"


def check_one_packet_per_byte(world):
    """Records cut anywhere by TCP."""
    with world.connect() as connection:
        connection.seal(keyless.frame(6, ping_items(b"packet by packet")))
        for byte in connection.outgoing.read():
            connection.socket.sendall(bytes([byte]))
            time.sleep(0.001)
        assert connection.answer().payload == b"packet by packet"


def check_a_frame_over_many_records(world):
    payload = os.urandom(65528)
    wire = keyless.request(7, PING, payload)
    with world.connect() as connection:
        for start in range(0, len(wire), 1000):
            connection.seal(wire[start : start + 1000])
        connection.flush()
        assert connection.answer().payload == payload


def check_many_frames_in_one_record(world):
    """As many as fit, and a frame that begins in one record and ends in the next."""
    frames = [keyless.frame(n, ping_items(b"%d" % n)) for n in range(2500)]
    with world.connect() as connection:
        connection.send(b"".join(frames))
        answers = connection.answers(len(frames))
        assert {n: a.payload for n, a in answers.items()} == {
            n: b"%d" % n for n in range(len(frames))
        }


def check_tls_versions_before_1_2(world):
    """Refused."""
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        tls = world.context()
        # Permit it on this side: the refusal must be the server's.
        tls.set_ciphers("DEFAULT:@SECLEVEL=0")
        tls.minimum_version = ssl.TLSVersion.TLSv1
        tls.maximum_version = version
        try:
            keyless.Connection(world.address, tls)
        except ssl.SSLError as error:
            assert "ALERT" in error.reason, f"not the server's refusal: {error}"
        else:
            raise AssertionError(f"{version} was accepted")
