"""An HTTPS server over SPIFFE mutual TLS, with a limit on everything a peer can spend."""

from spike.server.limit import Clock, Limits
from spike.server.request import Request
from spike.server.response import (
    BAD_REQUEST,
    BINARY_HEADERS,
    INTERNAL_ERROR,
    JSON_HEADERS,
    HeaderBlock,
    Response,
    header_block,
)
from spike.server.server import Server
from spike.server.service import Handler, Trust

__all__ = [
    "BAD_REQUEST",
    "BINARY_HEADERS",
    "INTERNAL_ERROR",
    "JSON_HEADERS",
    "Clock",
    "Handler",
    "HeaderBlock",
    "Limits",
    "Request",
    "Response",
    "Server",
    "Trust",
    "header_block",
]
