"""Locked key memory and the process's own protection."""
