"""The socket of the Workload API: its address, and whether only its owner can put another there.

Whoever can replace the socket decides who we are and whom we trust. The permission bits of the
socket itself say nothing about that: to connect *is* to write to it, so SPIRE gives it 0777. What
counts is who can make a name in the directories on the way to it.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spike.error import SettingError

SOCKET_VARIABLE = "SPIFFE_ENDPOINT_SOCKET"
# sun_path has 108 bytes, one of them for the final NUL (unix(7)).
PATH_LIMIT_BYTES = 107

_LINK_LIMIT = 40  # the kernel's own

_START_ONE = (
    f"start `spike dev`, or SPIRE's agent, and set {SOCKET_VARIABLE} to its socket, "
    "for example unix:///run/spire/agent.sock"
)


def parse_endpoint_untrusted(text: str | None) -> Path:
    """Return the socket's path from an endpoint, `unix:///path` or `unix:/path`.

    Raises:
        SettingError: missing, of another form, longer than a socket's path can be, or TCP: any
            local process could listen on a port in the agent's place.
    """
    if not text:
        raise SettingError(f"{SOCKET_VARIABLE} is not set", _START_ONE)
    if text.startswith("tcp:"):
        raise SettingError(
            f"{SOCKET_VARIABLE} names a TCP port, which any process on this machine could take",
            "give the Workload API a Unix socket: unix:///path",
        )
    rest = text.removeprefix("unix:")
    path = "/" + rest.lstrip("/")
    if rest not in {path, "//" + path} or rest == text or len(path) < 2 or not path.isprintable():
        raise SettingError(
            f"{SOCKET_VARIABLE} is not of the form unix:///path",
            f"set {SOCKET_VARIABLE} to the absolute path of the Workload API socket",
        )
    if len(os.fsencode(path)) > PATH_LIMIT_BYTES:
        raise SettingError(
            f"the path of the Workload API socket has more than {PATH_LIMIT_BYTES} bytes, "
            "which the kernel does not take",
            "choose a shorter path",
        )
    return Path(path)


@dataclass(frozen=True, slots=True)
class Viewpoint:
    """As whom a path is judged."""

    uid: int
    gid: int

    @classmethod
    def of_process(cls) -> Viewpoint:
        """Return this process's effective user and group."""
        return cls(os.geteuid(), os.getegid())


@dataclass(frozen=True, slots=True)
class Owned:
    """Whose a thing in the file system is, and who may write to it."""

    uid: int
    gid: int
    mode: int

    @classmethod
    def of(cls, found: os.stat_result) -> Owned:
        """Take what counts from what the kernel says."""
        return cls(found.st_uid, found.st_gid, found.st_mode)


def check_endpoint(path: Path, viewpoint: Viewpoint) -> None:
    """Refuse a socket that somebody else could put there.

    Each directory in which a name on the way is looked up, those of symbolic links included, must
    belong to root, to us or to the socket's owner and be writable by its owner only. In a sticky
    directory of root's (`/tmp`) everybody can make names but only owners can remove them: there
    the name must be root's or ours.

    Raises:
        FileNotFoundError: there is nothing at `path` (yet).
        PermissionError: we may not look.
        SettingError: it is no socket, or others could replace it; the message names the directory.
    """
    found = path.stat()
    if not stat.S_ISSOCK(found.st_mode):
        raise SettingError(f"{path} is not a socket", f"correct {SOCKET_VARIABLE}")
    for directory, name in _look_ups(path):
        fault = fault_of_look_up(
            Owned.of(directory.stat()),
            Owned.of((directory / name).lstat()),
            Owned.of(found),
            viewpoint,
        )
        if fault:
            raise SettingError(
                f"others could replace the Workload API socket {path}: {directory} {fault}",
                f"keep the socket where only its owner and root can write, for example: "
                f"chmod go-w {directory}",
            )


def fault_of_look_up(directory: Owned, name: Owned, socket: Owned, viewpoint: Viewpoint) -> str:
    """Say why others could put something else at `name` in `directory`; empty if they could not."""
    near = {0, viewpoint.uid}
    if directory.uid not in near | {socket.uid}:
        return f"belongs to {_user_name(directory.uid)}"
    if not directory.mode & (stat.S_IWGRP | stat.S_IWOTH):
        return ""
    if directory.mode & stat.S_ISVTX and directory.uid == 0:
        return "" if name.uid in near else "lets anybody make what lies there"
    if directory.mode & stat.S_IWOTH or not _is_own_group(directory.gid, viewpoint):
        return "is writable by others"
    return ""


def _look_ups(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield every directory and the name looked up in it, as the kernel walks `path`."""
    pending = list(path.parts[1:])
    here = Path("/")
    links = 0
    while pending:
        name = pending.pop(0)
        if name == "..":
            here = here.parent  # `here` is free of links, so this is what the kernel does
            continue
        yield here, name
        if not (here / name).is_symlink():
            here /= name
            continue
        links += 1
        if links > _LINK_LIMIT:
            raise SettingError(f"{path} leads through too many links", f"correct {SOCKET_VARIABLE}")
        target = (here / name).readlink()
        here = Path("/") if target.is_absolute() else here
        pending[:0] = target.parts[1:] if target.is_absolute() else target.parts


def _is_own_group(gid: int, viewpoint: Viewpoint) -> bool:
    """Tell whether the group is the user's private one, which has no other member.

    Where each user has such a group, home directories are often group-writable.
    """
    if gid != viewpoint.gid:
        return False
    try:
        user, group = pwd.getpwuid(viewpoint.uid).pw_name, grp.getgrgid(gid)
    except KeyError:
        return False
    return group.gr_name == user and set(group.gr_mem) <= {user}


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
