"""How running a model can end, in words: killed by a signal, or for want of memory."""

import os
import signal

from compression.errors import BadModel, CannotRun

CAUSES = {
    signal.SIGILL: "an instruction that this CPU lacks",
    signal.SIGKILL: "as the kernel does when memory ends",
    signal.SIGSEGV: "a crash in the runtime",
    signal.SIGABRT: "the runtime gave up, as it does without memory",
    signal.SIGBUS: "its file became shorter, or memory is not there",
    signal.SIGSYS: "a system call that is not allowed here",
    signal.SIGXCPU: "its CPU time was over",
}
_NO_MEMORY = ("bad_alloc", "Failed to allocate", "out of memory", "Cannot allocate memory")


def death(status: int) -> str:
    """Say how a process ended; `status` is what waitpid() gives."""
    if not os.WIFSIGNALED(status):
        return f"its process ended with exit code {os.WEXITSTATUS(status)}"
    number = os.WTERMSIG(status)
    try:
        name = signal.Signals(number)
    except ValueError:  # a real-time signal has no name
        return f"its process was killed by signal {number}"
    cause = CAUSES.get(name)
    return f"its process was killed by {name.name}" + (f" ({cause})" if cause else "")


def of_memory(error: BaseException, name: str) -> CannotRun | None:
    """Return what running the model `name` raised as CannotRun, if the reason is memory."""
    text = str(error)
    by_runtime = isinstance(error, BadModel) and any(sign in text for sign in _NO_MEMORY)
    if not by_runtime and not isinstance(error, MemoryError):
        return None
    return CannotRun(f"cannot run {name} here: out of memory ({text or 'an allocation failed'})")
