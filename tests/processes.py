"""Processes that tests start, and what the system knows of one (Linux)."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path


def children(process: int) -> list[int]:
    """Ids of the processes that a process has started and that are not gone."""
    threads = Path(f"/proc/{process}/task").iterdir()
    return sorted(int(child) for thread in threads for child in (thread / "children").read_text().split())


class Python:
    """``python *words`` without the seconds that torch takes to be imported, see :mod:`tests.fork_server`.

    What it needs of its environment before torch is imported (sitecustomize, OMP_NUM_THREADS) it does not see: such a
    program is for :mod:`subprocess`.
    """

    def __init__(self, *words: object, cwd: str | Path | None = None, env: dict[str, str] | None = None):
        self.words = [str(word) for word in words]
        self._out, self._err = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")  # noqa: SIM115  # wait() ends
        receive, send = os.pipe()
        request = json.dumps(dict(words=self.words, cwd=str(cwd or os.getcwd()), env=dict(env or os.environ)))
        socket.send_fds(_server(), [request.encode()], [self._out.fileno(), self._err.fileno(), send])
        os.close(send)
        self._ended = os.fdopen(receive, "rb", buffering=0)
        self.pid = int(self._ended.readline())

    def wait(self, timeout: float = 600) -> subprocess.CompletedProcess:
        """Its status and all that it has said; a signal that ended it is a status below 0."""
        with self._ended, self._out, self._err:
            ended = False
            try:
                ended = bool(select.select([self._ended], [], [], timeout)[0])
            finally:
                if not ended:  # by Ctrl-C, too
                    with suppress(ProcessLookupError):
                        os.kill(self.pid, signal.SIGKILL)
            if not ended:
                raise TimeoutError(f"{self.words} has not ended in {timeout} s")
            status = int(self._ended.readline())
            for said in (self._out, self._err):
                said.seek(0)
            return subprocess.CompletedProcess(self.words, status, self._out.read(), self._err.read())


def run_python(
    *words: object, cwd: str | Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    """``subprocess.run([sys.executable, *words], capture_output=True, text=True)``, sooner, see :class:`Python`."""
    return Python(*words, cwd=cwd, env=env).wait()


def run_ranks(*commands: Sequence[object]) -> list[subprocess.CompletedProcess]:
    """Programs that wait for each other: what they have said, and all must end with status 0.

    Args:
        commands: ``(script, *arguments)`` of each. They find in their environment what torchrun tells its own.
    """
    world = len(commands)
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    ranks = []
    for rank, words in enumerate(commands):
        told = {name: str(value) for name, value in {**meeting, "RANK": rank, "LOCAL_RANK": rank}.items()}
        ranks.append(Python(*words, env=os.environ | told))
    done = [rank.wait() for rank in ranks]
    assert [rank.returncode for rank in done] == [0] * world, "\n".join(rank.stderr for rank in done)
    return done


def free_port() -> int:
    """That nothing listens to."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@cache
def _server() -> socket.socket:
    """One for each process of pytest; it ends when that does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, Path(__file__).with_name("fork_server.py"), str(theirs.fileno())]
    server = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    theirs.close()

    def end() -> None:
        ours.close()
        server.wait()

    atexit.register(end)
    return ours
