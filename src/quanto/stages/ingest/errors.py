"""What can go wrong between a vendor and us, by cause; each class says whether asking again can help."""

from __future__ import annotations

from typing import ClassVar

from quanto.core.errors import VendorError


class FetchError(VendorError):
    """One question to a vendor stayed without a usable answer.

    `retryable`: the same question may be answered later in this run. `most_attempts`: the bound for causes that rarely
    heal. `stops_run`: every further question to this vendor would end alike (a refused key, a used-up quota), so the
    run stops, keeps what arrived, and is resumed later.
    """

    retryable: ClassVar[bool] = False
    most_attempts: ClassVar[int] = 1_000_000
    stops_run: ClassVar[bool] = False

    def __init__(self, message: str, wait_seconds: float | None = None) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds  # what the vendor told us to wait, if it did
        self.status = 0  # of the answer that ended it, and its body: a refusal is a fact worth keeping
        self.body = b""


class ConnectionFailedError(FetchError):
    """No connection: refused, reset, DNS or TLS failed."""

    retryable = True


class TimedOutError(FetchError):
    """The first byte, the next byte or the whole answer came too late."""

    retryable = True


class TruncatedError(FetchError):
    """The body ended before its end; nothing of it is kept."""

    retryable = True


class ServerError(FetchError):
    """The vendor's side failed for now (408, 413, 425, 499, 5xx)."""

    retryable = True


class RateLimitedError(FetchError):
    """Too many requests (429): wait as told, then ask again."""

    retryable = True


class WrongContentError(FetchError):
    """A page for people (maintenance, login, captcha) stands where data should be."""

    retryable = True
    most_attempts = 3


class UndecodableError(FetchError):
    """The body is empty, `null`, half a document, or in an encoding that was not asked for; never "no rows"."""

    retryable = True
    most_attempts = 4


class QuotaExhaustedError(FetchError):
    """The vendor kept answering 429: the quota of the day is used up; resume later."""

    stops_run = True


class AuthenticationError(FetchError):
    """The vendor refuses the credentials (401, or a 403 that says so), perhaps rotated in the middle of the run."""

    stops_run = True


class NotEntitledError(FetchError):
    """The plan does not include what was asked (403)."""


class OutsidePlanWindowError(NotEntitledError):
    """The plan includes the data but not this far back (403): shorten the range."""


class NotYetAvailableError(NotEntitledError):
    """The newest sessions are not open to this plan yet (403): ask again after the close."""


class NotFoundError(FetchError):
    """The vendor does not know what was asked for (404)."""


class RefusedRequestError(FetchError):
    """The vendor calls the question wrong (400, 422 and other final statuses)."""


class ReportedError(FetchError):
    """A status of 200 whose body says that the question failed."""


class JobError(FetchError):
    """A vendor's file job failed, or was not ready within its time."""


class PagingError(FetchError):
    """Pages loop, do not advance, exceed their number, or lead away from the configured origin."""


class ContractError(FetchError):
    """An answer breaks the vendor's contract: a required field is missing or renamed, or two facts contradict."""
