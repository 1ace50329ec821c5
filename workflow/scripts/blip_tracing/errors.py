"""The error that tells a researcher what to mend."""


class InputError(ValueError):
    """Something given to the workflow is wrong.

    The message is one line: it names the thing (file, row, key), says what is wrong with it and
    how to mend it. Whoever catches this shows the message alone, without a traceback.
    """
