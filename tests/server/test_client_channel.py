"""A client that does not read what it asked for."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

from respkv.server.channels import READ, WRITE, ClientChannel


class Shell:
    """What a client's socket needs of the reactor."""

    def __init__(self) -> None:
        self.settings = SimpleNamespace(
            requirepass=["secret"],
            unauthenticated_output_buffer_limit=1 << 20,
            client_output_buffer_limit=SimpleNamespace(normal=SimpleNamespace(hard_bytes=0, soft_bytes=0, soft_s=0)),
        )
        self.node = SimpleNamespace(
            clients={1: SimpleNamespace(authenticated=False, out_bytes=0)},
            statistics=SimpleNamespace(net_output_bytes=0, output_limit_closes_total=0),
        )
        self.channels: dict[int, ClientChannel] = {}
        self.closed = False

    def modify(self, channel: ClientChannel, interest: int) -> None:
        assert not self.closed
        channel.interest = interest

    def close_client(self, channel: ClientChannel) -> None:
        self.closed = True
        self.channels.clear()

    def on_event(self, level: str, text: str) -> None:
        assert "unauthenticated-output-buffer-limit" in text


def test_a_stranger_is_closed_with_its_last_reply_on_the_way() -> None:
    """The limit was lowered while the kernel's buffer was full: what is unread was not too much before."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        shell: Any = Shell()
        channel = ClientChannel(shell, ours, client_id=1)
        shell.channels[channel.descriptor] = channel
        channel.send([bytes(1 << 18)])
        assert channel.interest == READ | WRITE
        shell.settings.unauthenticated_output_buffer_limit = 1 << 10
        taken = 0
        while taken < 1 << 17:
            taken += len(theirs.recv(1 << 18))
        channel.ready(WRITE)
        assert shell.closed
        assert shell.node.statistics.output_limit_closes_total == 1
