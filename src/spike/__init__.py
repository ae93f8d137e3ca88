"""SPIKE: secrets over SPIFFE, under a root key that is generated, backed up, rotated, watched and recovered."""
