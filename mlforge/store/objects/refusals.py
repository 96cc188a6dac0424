"""Whose fault a server's refusal to read is: that of one object, or of whoever asks."""

from __future__ import annotations

import re

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>\s*([\w.]+)\s*</Code>")
_MESSAGE = re.compile(r"<Message>\s*([^<]*[^<\s])\s*</Message>")
_MOST = 300
_NO_STATE = re.compile(r"(?:ETag|[Gg]eneration) Header missing")
_OF_OBJECTS = {"400", "403", "409", "410", "451"}
"""Statuses of what may not be read: denied, in an archive, or encrypted with a key that is not at hand."""
_WITHOUT_REASON = {"403", "409"}
"""Statuses that say so without a code, as answers to HEAD have none."""
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "BucketNotFound")
_OF_CALLERS = {
    *("AuthenticationFailed", "AuthorizationHeaderMalformed", "ExpiredToken", "InvalidAccessKeyId"),
    *("InvalidAuthenticationInfo", "InvalidSecurity", "InvalidToken", "NotSignedUp"),
    *("RequestExpired", "RequestTimeTooSkewed", "RequestTimeout", "SignatureDoesNotMatch"),
    *("TokenRefreshRequired", "AccountProblem", "AllAccessDisabled"),
    *_NO_BUCKET,
}
"""Codes that name the credentials, the clock or the bucket: all objects are refused alike."""


_OVERLOADED = {"SlowDown", "ServerBusy", "TooManyRequests"}
"""Codes of a server that has no time, for whichever object."""
_OF_ALL = {"401", "429"}


def is_of_object(told: str) -> bool:
    """Whether the text of an error says that a server refuses this object, while others may be read.

    False where it is not sure: then whoever asks waits, rather than going on without objects that are well.
    """
    status, code = _STATUS.search(told), _CODE.search(told)
    if status is None:
        return False
    if code is None:
        return status[1] in _WITHOUT_REASON
    return status[1] in _OF_OBJECTS and code[1] not in _OF_CALLERS


def may_be_of_object(told: str) -> bool:
    """Whether an error, which is not sure to be of one object, may be: it names neither whoever asks, nor the bucket, nor a lack of time."""
    status, code = _STATUS.search(told), _CODE.search(told)
    if status is not None and status[1] in _OF_ALL:
        return False
    return code is None or code[1] not in _OF_CALLERS | _OVERLOADED


def is_of_bucket(told: str) -> bool:
    """Whether the text of an error says that there is no such bucket: clients tell it as they tell that an object is missing."""
    code = _CODE.search(told)
    return code is not None and code[1] in _NO_BUCKET


def tells_no_state(told: str) -> bool:
    """Whether a server answered a write without the state of what it wrote, on which a condition could be set."""
    return _NO_STATE.search(told) is not None


def brief(told: str) -> str:
    """A server's own words in the text of an error, as `403 AccessDenied: no`; else the text's first line, at most 300 characters of it."""
    status, code, message = (found.search(told) for found in (_STATUS, _CODE, _MESSAGE))
    if status is None or code is None:
        return next(iter(told.splitlines()), "")[:_MOST]
    why = f": {message[1]}" if message else ""
    return f"{status[1]} {code[1]}{why}"[:_MOST]


_ADVICE = {
    "the credentials have expired: renew them, as by 'aws sso login' or a new session token, and try again": (
        *("ExpiredToken", "RequestExpired", "TokenRefreshRequired", "InvalidToken"),
    ),
    "the credentials that were found may not do this": ("AccessDenied",),
    "the server does not know the credentials that were found, or they are wrong": (
        *("InvalidAccessKeyId", "SignatureDoesNotMatch"),
    ),
    "this machine's clock is wrong, or the server's": ("RequestTimeTooSkewed",),
    "there is no such bucket, or it is gone: make it, or correct the address": _NO_BUCKET,
    "its server is overloaded, and was so each time that it was asked again: try later, or let fewer machines ask it": (
        *(*sorted(_OVERLOADED), "ServiceUnavailable"),
    ),
}


def advice(told: str) -> str | None:
    """The advice that fits the text of an error, by the server's own code in it; None where there is none."""
    code = _CODE.search(told)
    return next((text for text, codes in _ADVICE.items() if code and code[1] in codes), None)
