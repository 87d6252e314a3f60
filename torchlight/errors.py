"""The error for a mistake the user can mend."""


class UserError(Exception):
    """One line: what is wrong, in which file (line, key), what to do.

    Root scripts print it without a traceback and exit with status 2.
    """
