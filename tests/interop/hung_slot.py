"""What clients are told when the slot of their key does not answer. The server's deadline is 1.5 s."""

import os
import time

import keyless
from keys import digest_of
from world import expect_error

DEADLINE = 1.5
LATE = 10.0
"""What a busy machine may add."""


def check_a_stock_client_is_told_at_the_deadline(world):
    """Error 8, which every client knows, when the time is over; and the connection goes on."""
    with world.connect() as connection:
        for _ in range(2):
            key = world.keys["p-256"]
            begun = time.monotonic()
            answer = connection.ask(keyless.ECDSA_SIGN_SHA256, digest_of(3, os.urandom(32)), key.ski)
            took = time.monotonic() - begun
            expect_error(answer, keyless.INTERNAL)
            assert took < DEADLINE + LATE, f"after {took:.2f} s"
            connection.expect_alive()


def check_a_deadline_of_the_client_counts(world):
    """Item 0x30 asks for less time: the answer comes sooner."""
    with world.connect() as connection:
        key = world.keys["p-256"]
        begun = time.monotonic()
        more = keyless.item(keyless.DEADLINE, (300).to_bytes(4, "big"))
        digest = digest_of(3, os.urandom(32))
        answer = connection.ask(keyless.ECDSA_SIGN_SHA256, digest, key.ski, more)
        expect_error(answer, keyless.INTERNAL)
        assert time.monotonic() - begun < DEADLINE + LATE


def check_other_keys_are_served(world):
    """A key in a file, over the connection on which others wait for the slot."""
    with world.connect() as connection:
        hung, well = world.keys["p-256"], world.keys["p-384"]
        digest = digest_of(3, os.urandom(32))
        waiting = {connection.take_id(): hung for _ in range(3)}
        for number, key in waiting.items():
            connection.send(keyless.request(number, keyless.ECDSA_SIGN_SHA256, digest, key.ski))
        begun = time.monotonic()
        number = connection.take_id()
        connection.send(keyless.request(number, keyless.ECDSA_SIGN_SHA256, digest, well.ski))
        answers = connection.answers(4)
        assert answers[number].opcode == keyless.REPLY, answers[number].error
        assert all(answers[one].error == keyless.INTERNAL for one in waiting), answers
        assert time.monotonic() - begun < DEADLINE + LATE
