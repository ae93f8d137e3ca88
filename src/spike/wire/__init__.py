"""What crosses the wire: messages, calls, JSON as Go does it, error codes, validation. No I/O."""
