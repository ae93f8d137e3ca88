"""The whole of what can happen in a rotation: every state the model reaches, by breadth first."""

from __future__ import annotations

from functools import partial

from model import rotation_rule as rule
from model.exploration import Exploration, Model, explored
from model.rotation_model import steps
from model.rotation_world import Setting, is_well, start, wrong_with
from spike.lifecycle.keyring import Phase


def explore(setting: Setting, *, ways_out: bool = True) -> Exploration:
    """Reach every state. It ends early when something wrong is found."""
    model = Model(
        start(setting),
        partial(steps, setting=setting),
        is_well,
        partial(wrong_with, setting=setting),
    )
    seen, worlds = explored(model, ways_out=ways_out)
    if not seen.found:
        seen.reached = {str(rule.phase(world.store.document)) for world in worlds}
    return seen


PHASES = {str(phase) for phase in (None, *Phase)}
