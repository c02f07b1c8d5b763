"""One tree of errors, by cause; a message says what was expected, what was found, where, and what to do."""

from __future__ import annotations


class QuantoError(Exception):
    """The root of every error that Quanto raises on purpose."""

    def __str__(self) -> str:
        # KeyError would print its message as a repr; every error of ours prints it as written.
        return str(self.args[0]) if len(self.args) == 1 else super().__str__()


class ConfigError(QuantoError, ValueError):
    """A configuration value is missing, unknown, of the wrong type, or contradicts another."""


class UnknownNameError(ConfigError, KeyError):
    """A name stands in no registry; the message gives the closest match and the full list."""


class DataError(QuantoError, ValueError):
    """Data break a contract: a wrong schema, NaN where none may be, an impossible value."""


class MissingDataError(DataError, LookupError):
    """Data that are needed are not there; the message names the symbols and dates."""


class IntegrityError(QuantoError, ValueError):
    """Bytes are not what their digest says, or a chain of records is broken."""


class VendorError(QuantoError, RuntimeError):
    """A vendor or the way to it failed; subclasses in the vendor clients say how."""


class ComputeError(QuantoError, RuntimeError):
    """A task of an executor failed; the message carries the task's key."""


class TrainingError(QuantoError, ArithmeticError):
    """Training left the numbers it can continue from; names the step and the column."""


class GovernanceError(QuantoError, PermissionError):
    """A rule of promotion forbids the step; the message names the rule and what would satisfy it."""


class ExecutionError(QuantoError, RuntimeError):
    """An order, a broker or the engine is in a state that does not allow what was asked."""
