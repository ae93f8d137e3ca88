"""Primitives: key derivation, the record format, sealing to a password's key pair, known-answer tests."""
