"""The two ways in which a command may end that are not bugs: the user can mend something, or a run gave up.

Everything else that is raised is a bug of ours or of a library and keeps its traceback.
"""


class UserError(ValueError):
    """Something that the user can mend: a path, an option, a file, a folder, a value in a config.

    Raised where input enters (a command's arguments, a config's values, files). The message names the file or option,
    says what was expected and what came, and what to do. Commands print it alone and leave with status 2.
    """


class ConversionError(UserError):
    """A checkpoint cannot be read, recognised, mapped, proved or written; nothing was written."""


class RunFailedError(RuntimeError):
    """A run that ended by itself, for a reason that its message tells in full: diverged, collapsed, disk full.

    Commands print the message alone and leave with status 1.
    """


STOPPED = 75
"""Status of a process that a :class:`RunStoppedError` ended: EX_TEMPFAIL of sysexits.h, try again."""


class RunStoppedError(RunFailedError):
    """A run that was asked to stop, has written a checkpoint, and can go on from it.

    It has said so itself. Commands leave with status :data:`STOPPED`, on which a job can be requeued.
    """
