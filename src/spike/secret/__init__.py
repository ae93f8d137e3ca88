"""The rules of secrets and their versions, and the stored form of both. Pure: no I/O, no clock."""
