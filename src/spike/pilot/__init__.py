"""Pilot: the 'spike' command."""
