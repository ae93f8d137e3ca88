"""The fuzz targets of a Keeper begin where it matters: their seeds get all the way through."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spike.client.exchange import ReplyFraming
from spike.keeper.anchor import HeldAnchor
from spike.wire import keeper
from spike.wire.go_json import decode_answer_untrusted, decode_untrusted


def _load() -> ModuleType:
    # By its path: each package's tests have a target.py.
    spec = importlib.util.spec_from_file_location(
        "keeper_target", Path(__file__).with_name("target.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TARGET = _load()


def test_each_seed_is_what_its_target_takes() -> None:
    seeds = TARGET.SEEDS
    assert set(seeds) == set(TARGET.TARGETS)
    assert decode_untrusted(keeper.StageRequest, seeds["request"][1:]).threshold == 2
    assert keeper.KEEPER_CALLS[seeds["request"][0]] is keeper.STAGE
    assert decode_answer_untrusted(keeper.ShareAnswer, seeds["answer"][1:]).threshold == 2
    framing = ReplyFraming(1024)
    framing.feed_untrusted(seeds["reply"])
    assert framing.reply is not None
    assert HeldAnchor.parse_untrusted(seeds["anchor"]).age == (1, 2)


@pytest.mark.parametrize("name", sorted(TARGET.TARGETS))
@settings(deadline=None)  # other processes may have the machine
@given(data=st.data())
def test_no_target_raises_anything_near_its_seed(name: str, data: st.DataObject) -> None:
    seed = TARGET.SEEDS[name]
    at = data.draw(st.integers(0, len(seed)))
    length = data.draw(st.integers(0, 4))
    TARGET.TARGETS[name](seed[:at] + data.draw(st.binary(max_size=6)) + seed[at + length :])
