"""The error a data file or a data argument of the user's raises."""


class DataError(ValueError):
    """One line: what is wrong, in which file (line, key), what to do."""


def printable(found: object) -> str:
    """What a file holds, or what a library says of it, fit for a message: short, on one line."""
    text = " ".join(str(found).split()) or type(found).__name__
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:200])
    return shown + ("..." if len(text) > 200 else "")
