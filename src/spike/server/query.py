"""The query of a request, as Go reads it."""

from __future__ import annotations

from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl

from spike.error import InputError

_FIELD_LIMIT: Final = 16
_REMEMBERED: Final = 64


@lru_cache(_REMEMBERED)
def action_untrusted(query: bytes) -> str:
    """Return the first value of the query parameter `action`, as Go's `Query().Get` does; absent is empty.

    Raises:
        InputError: the query is no query.
    """
    if not query:
        return ""
    try:
        fields = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, max_num_fields=_FIELD_LIMIT
        )
    except ValueError as error:
        raise InputError("the query is malformed") from error
    return next((value for name, value in fields if name == "action"), "")
