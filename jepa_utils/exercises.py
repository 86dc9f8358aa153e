"""Checks for the notebooks' exercises: they never stop Run All."""

from collections.abc import Callable


def run(check: Callable[[], None]) -> None:
    """Call a check and say how the attempt stands. Its assertions carry the hints."""
    if not __debug__:  # assertions are not even compiled, so that any attempt would pass
        print("not checked: this Python ignores assertions; start it without -O, and without PYTHONOPTIMIZE")
        return
    try:
        check()
    except Exception as error:  # an attempt may fail in any way; the reader wants the reason, not a stop
        untouched = isinstance(error, NotImplementedError) and not str(error)  # torch raises it too, with a text
        print("not attempted yet" if untouched else f"not yet: {type(error).__name__}: {error}")
    else:
        print("passed")
