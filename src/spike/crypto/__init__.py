"""Primitives: derivation, the record format, sealing to a password's key pair, known answers."""
