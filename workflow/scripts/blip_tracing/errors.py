"""The errors that a researcher reads: one line each, shown without a traceback."""

import sys
from collections.abc import Callable


class InputError(ValueError):
    """Something given to the workflow is wrong.

    The message is one line: it names the thing (file, row, key), says what is wrong with it and
    how to mend it. Whoever catches this shows the message alone, without a traceback.
    """


class MeasurementError(ArithmeticError):
    """A measurement cannot be trusted: a control failed, or numbers are not finite.

    The message is one line, as an InputError's: it names the example and the layer.
    """


READABLE = (InputError, MeasurementError)


def run_command(work: Callable[[], str]) -> int:
    """Print what a command's work says; wrong input ends it with one line and exit code 1."""
    try:
        print(work())
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
