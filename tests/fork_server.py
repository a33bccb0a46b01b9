"""Python programs that start in a tenth of a second: children of a process that has imported torch and its like.

Half of what a small program of ours takes are these imports, four seconds of them, and the tests start some hundred.
Nothing of ours is imported before the program is: what it imports, and whether it can, stays its own affair.
:mod:`tests.processes` starts the server and speaks to it.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import socket
import sys
from typing import Any

import matplotlib.pyplot  # noqa: F401
import mmengine.runner  # noqa: F401
import timm  # noqa: F401
import torch  # noqa: F401
import torchvision  # noqa: F401


def serve(requests: socket.socket) -> dict[str, Any] | None:
    """Fork a watched child for each request; returns in the child, with its request, and at the end (None)."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the watching processes are not waited for
    while True:
        message, files, _, _ = socket.recv_fds(requests, 1 << 20, 3)
        if not message:
            return None
        if not os.fork():
            break
        for file in files:
            os.close(file)
    requests.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    out, err, ended = files
    if child := os.fork():
        os.close(out)
        os.close(err)
        os.write(ended, f"{child}\n".encode())
        os.write(ended, f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n".encode())
        os._exit(0)
    os.close(ended)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in ((1, out), (2, err)):
        os.dup2(file, number)
        os.close(file)
    return json.loads(message)


def become(words: list[str], cwd: str, env: dict[str, str]) -> None:
    """Run what ``python *words`` runs."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[1:1] = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
    kind, *rest = words
    if kind == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        main = {"__name__": "__main__", "__builtins__": __builtins__}
        exec(compile(rest[0], "<string>", "exec"), main)
    elif kind == "-m":
        sys.argv, sys.path[0] = rest, cwd
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = words, os.path.dirname(os.path.abspath(kind))
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    gc.freeze()  # children share the memory of what is never looked at
    os.fsync = lambda _file: None  # as in conftest.py
    if request := serve(socket.socket(fileno=int(sys.argv[1]))):
        try:
            become(**request)
        finally:
            gc.freeze()
