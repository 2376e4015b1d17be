"""Standard input and output as a socket.

What they are is the starter's choice: terminal, pipe, file. None of them is made non-blocking,
since others have them open, too; so a thread each reads and writes, and waits where they do."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import sys
import threading

from shmbus import streams

_CHUNK = 64 * 1024


class Pumps:
    """`socket` gives what comes on standard input; what is written to it goes to standard output.
    When nobody reads that any more, it is closed."""

    def __init__(self) -> None:
        self.socket, self._other = socket.socketpair()
        self._input, self._output = sys.stdin.fileno(), sys.stdout.fileno()
        self._problem: OSError | None = None
        self._writing = threading.Thread(target=self._write, name="standard output", daemon=True)

    def start(self) -> None:
        threading.Thread(target=self._read, name="standard input", daemon=True).start()
        self._writing.start()

    def finish(self) -> None:
        """Wait until all is written. Raises `OSError` where standard output did not take it."""
        self._writing.join()
        if self._problem is not None:
            raise self._problem

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while content := os.read(self._input, _CHUNK):
                self._other.sendall(content)
        with contextlib.suppress(OSError):
            self._other.shutdown(socket.SHUT_WR)

    def _write(self) -> None:
        watched = select.poll()
        watched.register(self._other, select.POLLIN)
        watched.register(self._output, 0)  # POLLERR: nobody reads it any more
        try:
            while content := self._next(watched):
                left = memoryview(content)
                while left:
                    left = left[os.write(self._output, left) :]
        except OSError as why:
            why.filename = streams.OUTPUT
            self._problem = why
        with contextlib.suppress(OSError):
            self._other.shutdown(socket.SHUT_RDWR)

    def _next(self, watched: select.poll) -> bytes:
        """What is to be written; nothing at the end. Raises `OSError`."""
        for descriptor, events in watched.poll():
            if descriptor == self._output and events & select.POLLERR:
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        with contextlib.suppress(ConnectionError):
            return self._other.recv(_CHUNK)
        return b""
