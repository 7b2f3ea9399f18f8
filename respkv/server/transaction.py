"""The commands of one EXEC: a session without a socket, whose replies become one array. Pure.

Rule: they begin in their order, like the commands of any connection; those on other keys do not wait for each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from respkv.resp.writer import array
from respkv.server.session import Session

if TYPE_CHECKING:
    from respkv.commands.context import Client
    from respkv.commands.table import Command
    from respkv.server.dispatch import Cell, Dispatcher


class Transaction(Session):
    """What a client's EXEC runs, in the client's name."""

    is_admitted = True
    __slots__ = ("_not_begun", "_silent", "cell")

    def __init__(self, dispatcher: Dispatcher, client: Client, count: int) -> None:
        """`count` commands will be enqueued, all at once."""
        super().__init__(client.id, dispatcher=dispatcher, reader=None, address=client.address, local_address=client.local_address)
        self.subject = client
        self.authenticated = True
        self._not_begun = count
        self.cell: Cell = [None]
        self._silent = client.silent
        self._follow()

    def _follow(self) -> None:
        """Take over what the client chose for its requests."""
        self.resp = self.subject.resp
        self.quorum = self.subject.quorum
        self.readonly = self.subject.readonly
        self.settle()

    def run(self, commands: list[list[bytes]]) -> int:
        """Begin commands until one has to wait."""
        begun = super().run(commands)
        self._not_begun -= begun
        self._complete()
        return begun

    def drain(self) -> None:
        """Some replies came."""
        super().drain()
        self._complete()

    def flushed(self) -> list[bytes]:
        """The replies leave all together, as the reply to EXEC."""
        self._touched = False
        return []

    def _carry_out(self, command: Command, arguments: list[bytes], keys: list[bytes]) -> None:
        super()._carry_out(command, arguments, keys)
        self._follow()

    def _complete(self) -> None:
        if self._not_begun or self.pending or self.cell[0] is not None:
            return
        self.cell[0] = b"" if self._silent else array(self.out)
        self.subject.drain()


def begin_transaction(dispatcher: Dispatcher, client: Any, commands: list[list[bytes]]) -> Cell:
    """Run commands for a client; the cell gets the array of their replies."""
    transaction = Transaction(dispatcher, client, len(commands))
    transaction.enqueue(commands)
    return transaction.cell
