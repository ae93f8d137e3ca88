"""Finding an engine by its name. Engines are entry points of the group `spike.storage`, so others
can ship theirs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Final, TypeAlias, cast

from spike.error import SettingError
from spike.storage.protocol import Store

GROUP: Final = "spike.storage"

OpenStore: TypeAlias = Callable[[Path], Awaitable[Store]]
"""What an entry point names: `async def open_store(directory: Path) -> Store`."""


async def open_store(name: str, directory: Path) -> Store:
    """Open the store of the engine called `name`; `directory` is where a local engine keeps its
    files.

    Raises:
        SettingError: no engine has this name, several have, it cannot be loaded, or the directory
            is not as it must be.
        NewerFormatError: a newer version of SPIKE wrote the store.
        StoreUnavailableError, StoreCorruptError: the engine's own.
    """
    opener = _load(_find(name, tuple(entry_points(group=GROUP))))
    return await opener(directory)


def _find(name: str, installed: tuple[EntryPoint, ...]) -> EntryPoint:
    found = [it for it in installed if it.name == name]
    if not found:
        names = ", ".join(sorted({it.name for it in installed})) or "none"
        raise SettingError(
            f"there is no storage engine {name!r}", f"choose one that is installed: {names}"
        )
    if len({it.value for it in found}) > 1:
        # Whichever came first would depend on the order of a directory.
        values = ", ".join(sorted({it.value for it in found}))
        raise SettingError(
            f"several packages install a storage engine {name!r}: {values}", "remove all but one"
        )
    return found[0]


def _load(engine: EntryPoint) -> OpenStore:
    try:
        return cast(OpenStore, engine.load())
    except (ImportError, AttributeError) as error:
        raise SettingError(
            f"the storage engine {engine.name!r} ({engine.value}) does not load: {error}",
            "install what it needs, or choose another engine",
        ) from error
