"""The handshake: who knows the secret gets in; strangers, replays, reflections and detours do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respkv.errors import PeerProtocolError
from respkv.transport.handshake import CHALLENGE_BYTES, HELLO_BYTES, MAGIC, PROOF_BYTES, Dialler, Listener

SECRET = b"sixteen bytes and more"
ALICE, BOB, EVE = "a1" * 20, "b0" * 20, "ee" * 20


def dialler(*, secret: bytes = SECRET, me: str = ALICE, peer: str = BOB, nonce: bytes = b"d" * 32) -> Dialler:
    return Dialler(secret, me, peer, nonce)


def listener(*, secret: bytes = SECRET, me: str = BOB, nonce: bytes = b"l" * 32) -> Listener:
    return Listener(secret, me=me, nonce=nonce)


def test_two_nodes_of_one_cluster_meet() -> None:
    caller, called = dialler(), listener()
    challenge = called.feed(caller.hello())
    assert len(challenge) == CHALLENGE_BYTES
    proof = caller.answer(challenge)
    assert called.feed(proof + b"first packet") == b""
    assert called.peer == ALICE
    assert called.rest == b"first packet"


@given(st.data())
def test_the_bytes_may_come_in_any_pieces(data: st.DataObject) -> None:
    caller, called = dialler(), listener()
    hello = caller.hello()
    cuts = sorted(data.draw(st.lists(st.integers(0, HELLO_BYTES), max_size=5)))
    challenge = b""
    for start, end in zip([0, *cuts], [*cuts, HELLO_BYTES], strict=True):
        challenge += called.feed(hello[start:end])
    proof = caller.answer(challenge) + b"rest"
    for byte in proof[: PROOF_BYTES - 1]:
        assert called.feed(bytes((byte,))) == b""
        assert called.peer is None
    called.feed(proof[PROOF_BYTES - 1 :])
    assert called.peer == ALICE
    assert called.rest == b"rest"


def test_a_listener_without_the_secret_is_found_out() -> None:
    caller = dialler()
    challenge = listener(secret=b"another secret").feed(caller.hello())
    with pytest.raises(PeerProtocolError, match="secret"):
        caller.answer(challenge)


def test_a_dialler_without_the_secret_is_found_out() -> None:
    caller, called = dialler(secret=b"another secret"), listener()
    start = len(MAGIC) + 1
    challenge = called.feed(caller.hello())
    # It cannot check the challenge, and guesses.
    with pytest.raises(PeerProtocolError, match="secret"):
        called.feed(bytes(PROOF_BYTES))
    assert called.peer is None
    assert challenge[start : start + 32] == b"l" * 32


def test_a_recorded_handshake_is_worthless() -> None:
    caller, called = dialler(), listener()
    hello = caller.hello()
    proof = caller.answer(called.feed(hello))
    again = listener(nonce=b"m" * 32)
    again.feed(hello)
    with pytest.raises(PeerProtocolError):
        again.feed(proof)
    # Nor is a recorded challenge, against a dialler with a fresh nonce.
    recorded = listener().feed(hello)
    with pytest.raises(PeerProtocolError):
        dialler(nonce=b"e" * 32).answer(recorded)


def test_a_proof_cannot_be_reflected() -> None:
    # Eve dials Bob in Alice's name, and Alice in Bob's, and gives each what the other says.
    bob, alice = listener(), listener(me=ALICE, nonce=b"k" * 32)
    from_bob = bob.feed(dialler(nonce=b"x" * 32).hello())
    from_alice = alice.feed(dialler(me=BOB, peer=ALICE, nonce=b"l" * 32).hello())
    for challenge, victim in ((from_alice, bob), (from_bob, alice)):
        with pytest.raises(PeerProtocolError):
            victim.feed(challenge[-PROOF_BYTES:])


def test_a_challenge_is_no_proof_of_the_same_conversation() -> None:
    called = listener()
    challenge = called.feed(dialler().hello())
    with pytest.raises(PeerProtocolError):
        called.feed(challenge[-PROOF_BYTES:])


def test_a_call_for_another_node_is_refused() -> None:
    with pytest.raises(PeerProtocolError, match="another node"):
        listener().feed(dialler(peer=EVE).hello())


def test_a_proof_holds_for_one_name_only() -> None:
    called = listener()
    challenge = called.feed(dialler(me=EVE).hello())
    # Alice knows the secret, but what she proves is that she is Alice.
    honest = dialler()
    with pytest.raises(PeerProtocolError):
        honest.answer(challenge)


def test_another_version_is_named() -> None:
    hello = bytearray(dialler().hello())
    hello[len(MAGIC)] = 9
    with pytest.raises(PeerProtocolError, match="speaks version 9, this node 1"):
        listener().feed(bytes(hello))
    challenge = bytearray(listener().feed(dialler().hello()))
    challenge[len(MAGIC)] = 9
    with pytest.raises(PeerProtocolError, match="speaks version 9"):
        dialler().answer(bytes(challenge))


def test_who_speaks_before_it_is_asked_is_refused() -> None:
    with pytest.raises(PeerProtocolError, match="before it was asked"):
        listener().feed(dialler().hello() + b"!")


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n", b"*1\r\n$4\r\nPING\r\n", b"\x16\x03\x01", b"\x00", b"RCmb", b"respkv\x00\x02"])
def test_strangers_are_refused_at_their_first_bytes(data: bytes) -> None:
    with pytest.raises(PeerProtocolError, match="not a respkv node"):
        listener().feed(data)


@given(st.binary(min_size=1, max_size=300))
def test_garbage_gets_no_answer_and_little_memory(data: bytes) -> None:
    called = listener()
    try:
        for byte in data:
            assert called.feed(bytes((byte,))) == b""
            assert len(called._buffer) < HELLO_BYTES
    except PeerProtocolError:
        pass
    assert called.peer is None


@given(st.data())
def test_one_wrong_bit_anywhere_keeps_a_node_out(data: st.DataObject) -> None:
    caller, called = dialler(), listener()
    spoilt = data.draw(st.sampled_from(["hello", "challenge", "proof"]))

    def deliver(name: str, message: bytes) -> bytes:
        if name != spoilt:
            return message
        place = data.draw(st.integers(0, 8 * len(message) - 1))
        changed = bytearray(message)
        changed[place >> 3] ^= 1 << (place & 7)
        return bytes(changed)

    def meet() -> None:
        challenge = deliver("challenge", called.feed(deliver("hello", caller.hello())))
        called.feed(deliver("proof", caller.answer(challenge)))

    with pytest.raises(PeerProtocolError):
        meet()
    assert called.peer is None
