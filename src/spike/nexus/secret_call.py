"""The calls on secrets: parse is done, the path is granted; validate, then act."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from spike.error import InputError, NotFoundError
from spike.nexus.handler import Handler, Reading, ReadingEach, Writing
from spike.nexus.opened import Opened
from spike.policy.access import Denied, Grant, NeedsPath
from spike.secret.version import SecretMeta
from spike.wire import call
from spike.wire.call import CallName
from spike.wire.go_time import go_time
from spike.wire.message import Empty
from spike.wire.secret import (
    SecretGetAnswer,
    SecretGetManyAnswer,
    SecretGetManyRequest,
    SecretGetRequest,
    SecretItem,
    SecretListAnswer,
    SecretMetadataAnswer,
    SecretMetadataInfo,
    SecretPutRequest,
    SecretVersionInfo,
    SecretVersionsRequest,
)
from spike.wire.validate import check_item_count, check_path, check_value_keys

MANY_LIMIT_CHARACTERS: Final = 8 << 20
"""The most characters one get-many answers with, all keys and values together."""


async def put(grant: Grant, opened: Opened, asked: SecretPutRequest) -> Empty:
    """Write a new version."""
    check_path(grant.resource)
    check_value_keys(asked.values)
    await opened.secrets.put(grant.resource, asked.values)
    return Empty()


async def get(grant: Grant, opened: Opened, asked: SecretGetRequest) -> SecretGetAnswer:
    """Read a version."""
    check_path(grant.resource)
    return SecretGetAnswer(await opened.secrets.get(grant.resource, asked.version))


async def get_many(
    decision: NeedsPath, opened: Opened, asked: SecretGetManyRequest
) -> SecretGetManyAnswer:
    """Read several; what is not there and what is not allowed look the same."""
    check_item_count(len(asked.items))
    answers: list[SecretGetAnswer | None] = []
    left = MANY_LIMIT_CHARACTERS
    for item in asked.items:
        answer = await _item(decision, opened, item)
        if answer is not None:
            left -= sum(len(key) + len(value) for key, value in answer.data.items())
        if left < 0:
            raise InputError("the answer would be too large: ask for fewer at once")
        answers.append(answer)
        # A thousand reads of an engine that never waits would hold up everybody else.
        await asyncio.sleep(0)
    return SecretGetManyAnswer(answers)


async def _item(decision: NeedsPath, opened: Opened, item: SecretItem) -> SecretGetAnswer | None:
    granted = decision.decide(item.path)
    if isinstance(granted, Denied):
        return None
    check_path(granted.resource)
    try:
        return SecretGetAnswer(await opened.secrets.get(granted.resource, item.version))
    except NotFoundError:
        return None


async def delete(grant: Grant, opened: Opened, asked: SecretVersionsRequest) -> Empty:
    """Delete versions softly."""
    check_path(grant.resource)
    await opened.secrets.delete(grant.resource, asked.versions)
    return Empty()


async def undelete(grant: Grant, opened: Opened, asked: SecretVersionsRequest) -> Empty:
    """Take deletions back."""
    check_path(grant.resource)
    await opened.secrets.undelete(grant.resource, asked.versions)
    return Empty()


async def list_paths(_grant: Grant, opened: Opened, _asked: Empty) -> SecretListAnswer:
    """List every path."""
    return SecretListAnswer(await opened.secrets.paths())


async def metadata(grant: Grant, opened: Opened, asked: SecretGetRequest) -> SecretMetadataAnswer:
    """Tell the life of a secret without its values."""
    check_path(grant.resource)
    meta = await opened.secrets.meta(grant.resource)
    opened.secrets.require_version(meta, asked.version)
    return _metadata_answer(meta)


def _metadata_answer(meta: SecretMeta) -> SecretMetadataAnswer:
    versions: dict[int, SecretVersionInfo] = {
        version.number: SecretVersionInfo(
            created_time=go_time(version.created_at),
            version=version.number,
            deleted_time=None if version.deleted_at is None else go_time(version.deleted_at),
        )
        for version in meta.versions
    }
    info = SecretMetadataInfo(
        current_version=meta.current,
        oldest_version=meta.oldest,
        created_time=go_time(meta.created_at),
        updated_time=go_time(meta.updated_at),
        max_versions=meta.max_versions,
    )
    return SecretMetadataAnswer(versions, info)


SECRET_HANDLERS: Final[Mapping[CallName, Handler]] = {
    call.SECRET_PUT.name: Writing(put),
    call.SECRET_GET.name: Reading(get),
    call.SECRET_GET_MANY.name: ReadingEach(get_many),
    call.SECRET_DELETE.name: Writing(delete),
    call.SECRET_UNDELETE.name: Writing(undelete),
    call.SECRET_LIST.name: Reading(list_paths),
    call.SECRET_METADATA_GET.name: Reading(metadata),
}
