"""Programs that are run with a limit of time, and end with this process however it is asked to end."""
import os
import signal
import subprocess
import threading
import time
from typing import NamedTuple

_running = set()
_lock = threading.Lock()


class Outcome(NamedTuple):
    code: int  # -1: it was ended, since it took too long
    output: str  # stdout and stderr
    seconds: float
    ended_at: float  # as time.time()


def _kill(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def end_all_with_this_process():
    """To be called once, by the main thread: SIGTERM and SIGINT kill what runs, with all that it started."""

    def end(number, _frame):
        for process in list(_running):
            _kill(process)
        os._exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


def run(words, variables, limit):
    begin = time.time()
    with _lock:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                                   env={**os.environ, **variables}, start_new_session=True)
        _running.add(process)
    try:
        output, _ = process.communicate(timeout=limit)
        code = process.returncode
    except subprocess.TimeoutExpired:
        _kill(process)
        output, _ = process.communicate()
        code = -1
    finally:
        _kill(process)  # what it has left behind
        _running.discard(process)
    return Outcome(code, output, time.time() - begin, time.time())
