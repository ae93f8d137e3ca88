"""The rules of the root key's life: keyring document, slots, states, anchor, restore. Pure: no I/O, no clock."""
