"""Pilot, the administrator's command `spike`."""
