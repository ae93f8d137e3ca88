"""What a person is told before an emergency: what the leaked key protected, since when, and what ends."""

from __future__ import annotations

import lifecycle_kit
from lifecycle_kit import AT
from spike.lifecycle.exposure import exposure
from spike.lifecycle.keyring import Emergency


def test_it_names_key_date_records_and_what_ends() -> None:
    document = lifecycle_kit.born().ring.document
    told = exposure(document, Emergency(leaked=("root",)), 17)
    assert f"root key 1 has been active since {AT}" in told[0]
    assert "17 records" in told[0]
    assert "cipher keys 1 " in told[1]
    assert "no way back" in told[3]
    assert (
        told[-1] == "slots that need a new password before the rotation counts as complete: admin"
    )


def test_a_slot_that_leaked_is_named_as_one_that_goes() -> None:
    document = lifecycle_kit.born().ring.document
    told = exposure(document, Emergency(leaked=("slot:admin",)), 0)
    assert told[-1] == "slots removed, because they leaked: admin"
