"""What can go wrong, as one line that names the thing and the remedy."""

from __future__ import annotations


class LabError(Exception):
    """A failure. The text is shown to the user as it is; `details` (e.g. the tail of a log) below it."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class UsageError(LabError):
    """The command line asks for something that does not exist in this lab."""
