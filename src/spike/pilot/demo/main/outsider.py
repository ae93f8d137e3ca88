"""Everybody who has no business at Nexus, and is told so."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from spike.error import ClaimError
from spike.pilot.demo.claim import claim, require, require_equal
from spike.pilot.demo.knock import Answered, Refused, Visitor, knock, knock_again
from spike.pilot.demo.main.world import (
    KEEPER,
    OTHER_WORKLOAD,
    PATH,
    SUPERUSER,
    TRUST_DOMAIN,
    WORKLOAD,
    MainWorld,
    own_uid,
    reading,
)
from spike.spiffe.workload.workload_grpc import SpiffeWorkloadAPIStub
from spike.spiffe.workload.workload_pb2 import X509SVIDRequest
from spike.spiffe.workload_source import fetch_material

_TIMEOUT_S = 10.0
_LONGEST_LIFE_S = 60.0


@claim("a process without an entry gets no identity: PERMISSION_DENIED")
def no_entry_no_identity(world: MainWorld) -> None:
    """Take our user's entry away, ask, and put it back."""
    entry = ("--uid", own_uid(), "--id", SUPERUSER)
    world.stage.run_well("spike-authority", "entry", "remove", *entry)
    try:
        status = _workload_status(world)
        ran = world.stage.run(
            "spike", "secret", "list", extra={"SPIKE_SPIFFE_SOURCE_TIMEOUT": "1s"}
        )
    finally:
        world.stage.run("spike-authority", "entry", "add", *entry)
    require_equal(status, Status.PERMISSION_DENIED, "the answer of the Workload API")
    require_equal(ran.code, 3, "the exit code of a command without an identity")


@claim("a caller without a certificate gets no connection")
def no_certificate(world: MainWorld) -> None:
    """Knock without one."""
    _require_refused(knock(world.stage.port, None, *reading(PATH)), "no certificate")


@claim("an SVID of an unknown trust domain gets no connection")
def unknown_trust_domain(world: MainWorld) -> None:
    """Knock with one that looks like an administrator's."""
    material = world.stranger.issue("spiffe://stranger.example/spike/pilot/role/superuser")
    _require_refused(knock(world.stage.port, material, *reading(PATH)), "the stranger's SVID")


@claim("a federated trust domain's SVID is let in, and allowed nothing")
def federated_is_denied(world: MainWorld) -> None:
    """Add its bundle with the real command; wait until Nexus has it."""
    pem = world.neighbour.pem
    world.stage.run_well(
        "spike-authority", "bundle", "add", world.neighbour.trust_domain, given=pem
    )
    material = world.neighbour.issue("spiffe://neighbour.example/spike/pilot/role/superuser")
    outcome: Answered | Refused = Refused("never tried")
    deadline_s = time.monotonic() + _TIMEOUT_S
    while isinstance(outcome, Refused) and time.monotonic() < deadline_s:
        outcome = knock(world.stage.port, material, *reading(PATH))
    _require_status(outcome, 401, "the neighbour's SVID")


@claim("a federated trust domain's SVID that claims to be of ours gets no connection")
def federated_claims_ours(world: MainWorld) -> None:
    """Its CA, which Nexus knows, signs an administrator of our trust domain."""
    for name in (SUPERUSER, WORKLOAD, f"spiffe://{TRUST_DOMAIN}/spike/nexus"):
        material = world.neighbour.issue(name)
        _require_refused(knock(world.stage.port, material, *reading(PATH)), f"a forged {name}")


@claim("a valid SVID without a policy is denied: 401")
def valid_without_policy(world: MainWorld) -> None:
    """A process with an identity that no policy matches."""
    told = world.probe(OTHER_WORKLOAD, PATH)
    require_equal(told, {"status": 401}, f"what {OTHER_WORKLOAD} is told")


@claim("a Keeper's SVID is denied at Nexus, whatever policies say: 401")
def keeper_is_denied(world: MainWorld) -> None:
    """Keepers hold shares and have no business with secrets; a careless policy changes nothing."""
    name = ("--name", "keepers")
    world.stage.run_well(
        *("spike", "policy", "create", *name, "--path-pattern", "^shop/"),
        *("--spiffeid-pattern", f"^{KEEPER}$", "--permissions", "read"),
    )
    require_equal(world.probe(KEEPER, PATH), {"status": 401}, f"what {KEEPER} is told")
    world.stage.run_well("spike", "policy", "delete", *name, given="y\n")


@claim("an SVID that has expired gets no new connection, also with a session ticket")
def expired_is_refused(world: MainWorld) -> None:
    """Keep an SVID past its end; a fresh one of the same process is let in at that very moment."""
    if world.expiring is None:
        begin_to_expire(world)
    visitor = world.expiring
    assert visitor is not None
    assert visitor.material is not None
    first = knock_again(visitor, *reading(PATH))
    _require_status(first, 200, "the SVID before its end")
    left_s = (visitor.material.svid.expires_at - datetime.now(UTC)).total_seconds()
    require(left_s < _LONGEST_LIFE_S, f"the SVID lives on for {left_s:.0f} s")
    time.sleep(max(0.0, left_s) + 0.1)
    session = visitor.socket.session
    require(session is None or not session.has_ticket, "the server gave a ticket to come back with")
    stale = knock(world.stage.port, visitor.material, *reading(PATH))
    _require_refused(stale, "an expired SVID")
    resumed = knock(world.stage.port, visitor.material, *reading(PATH), visitor)
    _require_refused(resumed, "an expired SVID with the earlier session")
    fresh = fetch_material(world.socket, _TIMEOUT_S)
    _require_status(knock(world.stage.port, fresh, *reading(PATH)), 200, "a fresh SVID")


@claim("a connection kept from before the SVID expired is served no more")
def expired_is_not_kept(world: MainWorld) -> None:
    """Use the connection that was answered 200 a moment before."""
    visitor = world.expiring
    assert visitor is not None
    match knock_again(visitor, *reading(PATH)):
        case Answered(status, body):
            require_equal(status, 401, "the answer on the kept connection")
            require(world.value.encode() not in body, "the secret was shown")
        case Refused():
            pass


def begin_to_expire(world: MainWorld) -> None:
    """Take the SVID of this moment and a connection with it, both to be kept past its end."""
    material = fetch_material(world.socket, _TIMEOUT_S)
    world.expiring = Visitor(world.stage.port, material)
    world.ends.callback(world.expiring.close)


def _workload_status(world: MainWorld) -> Status:
    """Ask the Workload API for an SVID as any gRPC client would; return the status."""

    async def ask() -> Status:
        channel = Channel(path=str(world.stage.place.workload_socket))
        try:
            stub = SpiffeWorkloadAPIStub(channel)
            header = {"workload.spiffe.io": "true"}
            async with stub.FetchX509SVID.open(metadata=header) as stream:
                await stream.send_message(X509SVIDRequest(), end=True)
                await stream.recv_message()
                await stream.cancel()  # an SVID came, and more would
        except GRPCError as error:
            return error.status
        finally:
            channel.close()
        return Status.OK

    return asyncio.run(ask())


def _require_refused(outcome: Answered | Refused, who: str) -> None:
    if isinstance(outcome, Answered):
        raise ClaimError(f"{who} is let in and answered {outcome.status}")


def _require_status(outcome: Answered | Refused, status: int, who: str) -> None:
    match outcome:
        case Answered(found):
            require_equal(found, status, f"the answer to {who}")
        case Refused(why):
            raise ClaimError(f"{who} gets no connection ({why}), and {status} was expected")


def give_entry_twice(world: MainWorld) -> None:
    """Sabotage: our user has a second entry, which nobody takes away."""
    world.stage.run_well(
        *("spike-authority", "entry", "add", "--uid", own_uid()),
        *("--id", f"spiffe://{TRUST_DOMAIN}/workload/forgotten"),
    )


def trust_stranger(world: MainWorld) -> None:
    """Sabotage: somebody adds the stranger's bundle."""
    world.stage.run_well(
        *("spike-authority", "bundle", "add", world.stranger.trust_domain),
        given=world.stranger.pem,
    )
    time.sleep(1.0)  # Nexus takes it over from its stream


def widen_policy(world: MainWorld) -> None:
    """Sabotage: a policy that matches everybody and everything."""
    world.stage.run_well(
        *("spike", "policy", "create", "--name", "everybody", "--path-pattern", ".*"),
        *("--spiffeid-pattern", "^spiffe://spike.ist/workload/.*$", "--permissions", "read"),
    )


def lengthen_svids(world: MainWorld) -> None:
    """Sabotage: Authority issues SVIDs for an hour instead of seconds."""
    world.stage.stop()
    world.stage.svid_lifetime = "1h"
    world.stage.start()
    world.restore()
