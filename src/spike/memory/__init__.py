"""Locked key memory and the process's own protection."""

from spike.memory.key_memory import KEY_BYTES, KeyMemory, wipe_all

__all__ = ["KEY_BYTES", "KeyMemory", "wipe_all"]
