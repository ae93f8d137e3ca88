"""Nexus: the store, and the owner of the root key."""
