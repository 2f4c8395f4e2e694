"""The error tree: every deliberate failure of roarline derives from one class."""

from __future__ import annotations


class RoarlineError(Exception):
    """Something went wrong that roarline foresaw; the message says what, where, and what to do."""

    exit_code = 1


class UserInputError(RoarlineError):
    """The user's configuration, command line, data or method is wrong."""

    exit_code = 2


class ConfigError(UserInputError):
    """The configuration file is wrong; the message lists every error that was found."""


class DataError(UserInputError):
    """The raw data set is missing, unreadable or inconsistent."""


class MethodError(UserInputError):
    """An attribution method returned something unusable: a wrong shape, NaN, the wrong type."""


class MetricError(UserInputError):
    """A metric of the user's own failed, or returned something unusable."""


class ModelError(UserInputError):
    """A model can't be built, its weights don't fit, or a named layer doesn't exist."""


class ArtifactError(RoarlineError):
    """An artifact is missing, damaged or can't be written."""


class JobError(RoarlineError):
    """A job of the plan failed or its worker process died."""
