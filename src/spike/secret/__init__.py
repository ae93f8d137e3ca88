"""The rules of a secret's versions. Pure."""
