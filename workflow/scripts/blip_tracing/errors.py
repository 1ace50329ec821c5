"""The errors that a researcher reads: one line each, shown without a traceback."""


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
