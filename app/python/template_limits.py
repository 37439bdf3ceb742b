"""Ends what a chat template may do to the program: run without end, take all memory, crash the interpreter.

A template is a program from somewhere else. The work is done in a child process; what ends the child unseen is told by
its parent in one line.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
import traceback

from input_error import TemplateRefused

SECONDS_A_RENDERING = 10
SECONDS_BEFORE_KILLING = 20  # for what Python cannot interrupt, such as one huge power
BYTES_OF_MEMORY = 4 << 30  # on top of what the process has
CHARACTERS_OF_TEXT = 1 << 26
BAD_INPUT, OUT_OF_RESOURCES, INTERRUPTED, TERMINATED = 2, 3, 130, 143


class _TooLong(BaseException):
    pass


def _raise_too_long(_signal, _frame):
    raise _TooLong


def _address_space():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


@contextlib.contextmanager
def limited_memory():
    """Inside, an allocation far beyond what is in use ends in MemoryError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = _address_space() + BYTES_OF_MEMORY
    if soft != resource.RLIM_INFINITY:
        wanted = min(wanted, soft)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def limited_rendering(render, where):
    """The result of render(). Throws TemplateRefused where it takes too long."""
    signal.signal(signal.SIGALRM, _raise_too_long)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS_BEFORE_KILLING)
    signal.setitimer(signal.ITIMER_REAL, SECONDS_A_RENDERING)
    try:
        return render()
    except _TooLong:
        raise TemplateRefused(
            f"{where}: the chat template ran longer than {SECONDS_A_RENDERING} seconds and was stopped"
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _die_with_parent():
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _tell(status):
    """The exit code for a child that a signal ended, said on standard error."""
    number = os.WTERMSIG(status)
    if number == signal.SIGVTALRM:
        text, code = f"the chat template ran longer than {SECONDS_BEFORE_KILLING} seconds and was stopped", BAD_INPUT
    elif number in (signal.SIGKILL, signal.SIGABRT):  # the tokenizers library aborts where it gets no memory
        ended = "killed" if number == signal.SIGKILL else "aborted"
        text = f"tokenization was {ended}, most likely for lack of memory: a long row takes about 200 bytes a character"
        code = OUT_OF_RESOURCES
    elif number in (signal.SIGINT, signal.SIGTERM):
        return INTERRUPTED if number == signal.SIGINT else TERMINATED
    else:
        text, code = f"tokenization was ended by {signal.Signals(number).name}; see the chat template", BAD_INPUT
    print(text, file=sys.stderr)
    return code


def run_supervised(work):
    """Runs work() -> exit code in a child process and returns its exit code. Both end with the process that started them."""
    _die_with_parent()
    child = os.fork()
    if child == 0:
        _die_with_parent()
        code = BAD_INPUT
        try:
            code = work()
            sys.stdout.flush()
            sys.stderr.flush()
        except KeyboardInterrupt:
            code = INTERRUPTED
        except Exception:
            traceback.print_exc()  # a defect of this program
        finally:
            os._exit(code)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the child has it too and decides
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else _tell(status)
