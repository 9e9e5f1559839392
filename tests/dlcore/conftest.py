"""What tests of processes that train need: to make one fail from inside."""

from dlcore.population import MemberState
from dlcore.workers import Job

DIE = "__import__('os').kill(__import__('os').getpid(), 9)"

_AT_EPOCH = """
from dlcore.population import MemberState
judge = MemberState.judge
def trap(self, *rest):
    if self.epoch == {epoch}:
        MemberState.judge = judge
        {action}
    return judge(self, *rest)
MemberState.judge = trap
"""
_AT_THE_END = """
from dlcore import workers
def trap(population):
    {action}
workers.carried_of = trap
"""


class Trap:
    """Unpickled, it changes the process that it arrives in: hang it on a state that a worker will get.

    Args:
        action: What the worker does then, once, as Python.
        epoch: Where a member has so many epochs behind it; None is when all is trained and must be sent back.
    """

    def __init__(self, action: str, epoch: int | None) -> None:
        self._code = (_AT_THE_END if epoch is None else _AT_EPOCH).format(action=action, epoch=epoch)

    def __reduce__(self) -> tuple[object, ...]:
        return exec, (self._code, {})


def trap(state: MemberState, action: str, epoch: int | None) -> None:
    """Let whichever worker trains this member fail; here nothing happens."""
    state.trap = Trap(action, epoch)  # type: ignore[attr-defined]


def trapped(job: Job, action: str, epoch: int | None) -> Job:
    """The job, at which a worker will fail."""
    trap(job.carried[0][0], action, epoch)
    return job
