"""`spike key schedule` against a shipped Nexus: what a person types and reads."""

from __future__ import annotations

import json
from pathlib import Path

from process_kit import Installation


def test_a_schedule_is_shown_changed_and_refused_with_a_reason(tmp_path: Path) -> None:
    with Installation(tmp_path) as made:
        made.init()
        shown = made.spike("key", "schedule", "show").stdout.decode()
        assert "nobody has changed it" in shown
        assert "replaced every 90 days" in shown
        assert "replaced every 365 days" in shown
        assert "Next rotation: data keys, begins " in shown

        arguments = (
            *("--window", "workdays 22:00-06:00", "--window", "sat,sun 00:00-00:00"),
            *("--zone", "Europe/Berlin", "--record-interval", "30d", "--root-interval", "never"),
        )
        done = made.spike("key", "schedule", "set", *arguments)
        assert done.returncode == 0, done.stderr
        told = done.stdout.decode()
        assert "windows                mon,tue,wed,thu,fri 22:00-06:00 (Europe/Berlin)" in told
        assert "sat,sun 00:00-00:00 (Europe/Berlin)" in told
        assert "root key               never replaced by itself" in told

        following = json.loads(made.spike("key", "schedule", "next", "--format", "json").stdout)
        assert following["next"]["scope"] == "data-only"
        assert following["next"]["fits"] is True
        events = json.loads(made.spike("key", "history", "--format", "json").stdout)["events"]
        assert [event["kind"] for event in events] == ["init", "schedule-changed"]

        for wrong, code, why in (
            (("--zone", "Europe/Nowhere"), 1, "knows no time zone Europe/Nowhere"),
            (("--window", "mun 22:00-06:00"), 1, "no day is called 'mun'"),
            (("--window", "mon 25:00-06:00"), 1, "'25:00' is no time of day"),
            (("--window", "mon"), 2, "is not of the form DAY,DAY HH:MM-HH:MM"),
            (("--record-interval", "0"), 2, "is not a number of days, or never"),
            (("--record-interval", "5000"), 1, "not 1 to 3650 days"),
            (("--usage-limit", "many"), 2, "is not a number of records, or none"),
            (("--no-windows", "--window", "mon 01:00-02:00"), 2, "contradict each other"),
            ((), 2, "Name what to change"),
        ):
            refused = made.spike("key", "schedule", "set", *wrong)
            said = refused.stderr.decode()
            assert refused.returncode == code, said
            assert why in said

        reset = json.loads(
            made.spike("key", "schedule", "set", "--default", "--format", "json").stdout
        )
        assert reset["default"] is True


def test_use_is_counted_over_an_orderly_restart(tmp_path: Path) -> None:
    with Installation(tmp_path) as made:
        made.init()
        for number in range(20):
            made.client.put_secret("a", {"k": str(number)})
        before = sealed(made)
        assert before >= 40  # a version and the metadata each
        made.drop_client()
        assert made.stop_nexus() == 0
        made.start_nexus()
        made.restore()
        assert sealed(made) >= before
        assert b"days old, has sealed" in made.spike("key", "list").stdout


def sealed(made: Installation) -> int:
    listed = json.loads(made.spike("key", "list", "--format", "json").stdout)
    (record,) = (key for key in listed if key["purpose"] == "record")
    return int(record["sealed"])
