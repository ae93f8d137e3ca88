"""Keeper: holds one share of the root key in memory, and gives it back to Nexus."""
