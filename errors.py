"""The one base of every error that is about the user's input, not about our code."""


class SpikeDeblurError(ValueError):
    """Something given from outside can't be used; the message says what to do.

    The command line prints the message in one paragraph and exits with 1.
    """
