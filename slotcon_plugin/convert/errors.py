"""The one error that a conversion ends in when the user, not the program, has something to change."""


class ConversionError(ValueError):
    """A checkpoint cannot be read, recognised, mapped, proved or written.

    The message names the file or the key, what was expected and what came, and what to do. The command-line
    tools print it and leave with exit status 1; nothing has been written then.
    """
