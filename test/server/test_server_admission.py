"""Who stays when there is no room for all: the rule alone."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from spike.server.admission import Admission
from spike.spiffe.id import SpiffeId


class Visitor:
    def __init__(self, owner: SpiffeId, claim: tuple[int, float] | None) -> None:
        self.owner = owner
        self._claim = claim

    def claim(self) -> tuple[int, float] | None:
        return self._claim


def _id(name: str, domain: str = "spike.ist") -> SpiffeId:
    return SpiffeId.parse_untrusted(f"spiffe://{domain}/{name}")


CLAIMS = st.none() | st.tuples(st.sampled_from([0, 1]), st.floats(0, 100))


@given(st.lists(st.tuples(st.sampled_from("abc"), CLAIMS), max_size=40))
def test_the_limits_hold_and_nobody_who_is_being_answered_leaves(
    arrivals: list[tuple[str, tuple[int, float] | None]],
) -> None:
    admission: Admission[Visitor] = Admission(max_total=8, max_per_identity=4)
    for name, claim in arrivals:
        before = Counter(each.owner for each in admission.all())
        newcomer = Visitor(_id(name), claim)
        leaving = admission.admit(newcomer.owner, newcomer)
        present = Counter(each.owner for each in admission.all())
        assert len(admission) == present.total() <= 8
        assert max(present.values()) <= 4
        assert len(leaving) <= 1
        for each in leaving:
            assert each is newcomer or each.claim() is not None
            # Whoever has fewer connections than another never loses one to it.
            assert each is newcomer or before[each.owner] >= before[newcomer.owner]


DOMAINS = ("spike.ist", "partner.example", "other.example")


@given(
    st.lists(st.tuples(st.sampled_from(DOMAINS), st.integers(0, 30), st.booleans()), max_size=80)
)
def test_no_trust_domain_takes_the_places_of_another_however_many_identities_it_has(
    arrivals: list[tuple[str, int, bool]],
) -> None:
    admission: Admission[Visitor] = Admission(max_total=9, max_per_identity=4)
    for domain, number, answered in arrivals:
        before = Counter(each.owner.trust_domain for each in admission.all())
        newcomer = Visitor(_id(str(number), domain), None if answered else (0, 0.0))
        for each in admission.admit(newcomer.owner, newcomer):
            if each.owner.trust_domain != newcomer.owner.trust_domain:
                # It has more than its share, and more than the newcomer's domain.
                assert before[each.owner.trust_domain] > before[newcomer.owner.trust_domain]
                assert before[each.owner.trust_domain] > 9 // len(DOMAINS)
        assert len(admission) == len(admission.all()) <= 9


def test_idle_ones_leave_before_those_in_a_request_and_the_longest_idle_first() -> None:
    admission: Admission[Visitor] = Admission(max_total=8, max_per_identity=4)
    owner = _id("a")
    reading, young, old = (Visitor(owner, each) for each in ((1, 0.0), (0, 9.0), (0, 5.0)))
    for each in (reading, young, old, Visitor(owner, None)):
        assert admission.admit(owner, each) == ()
    for expected in (old, young, reading):
        assert admission.admit(owner, Visitor(owner, None)) == (expected,)
    refused = Visitor(owner, (0, 0.0))
    assert admission.admit(owner, refused) == (refused,)


def test_leaving_twice_counts_once() -> None:
    admission: Admission[Visitor] = Admission(max_total=8, max_per_identity=4)
    visitor = Visitor(_id("a"), None)
    admission.admit(visitor.owner, visitor)
    admission.leave(visitor.owner, visitor)
    admission.leave(visitor.owner, visitor)
    assert len(admission) == 0
