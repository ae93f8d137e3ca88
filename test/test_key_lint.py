"""Where keys are handled, nothing may turn a view of key memory into an object that cannot be wiped.

`bytes(view)`, `view.hex()`, `view.tobytes()`, `int.from_bytes(view)` and the text encoders each leave a
copy on the heap that lives until it is overwritten by chance. The rule reads the source, so it cannot
see types: it forbids these calls in every module that handles keys, except on what is plainly a size
or is named in a reviewed list of public things.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "spike"
KEY_PACKAGES = ("memory/", "crypto/")  # and every module that names spike.memory

PUBLIC_NAMES = frozenset(
    {"store_id", "slot_id", "salt", "digest", "lineage", "public", "fingerprint"}
    | {
        "mac",
        "check_value",
        "data_check_value",
        "proof_of",
    }  # functions of spike.crypto whose results are public
)
"""What may be shown, by its name: a variable, an attribute or a function's result. A name of key
material never enters here."""

ALLOWED = {
    ("crypto/record.py", "blob[:HEADER_BYTES].tobytes()"): "six public bytes of a sealed record",
    ("crypto/record.py", "int.from_bytes(_header_untrusted(view)[2:], 'big')"): (
        "the generation in the header of a sealed record"
    ),
    ("lifecycle/shard_text.py", "raw[start:end].tobytes()"): (
        "the set id of a recovery shard, of the size of one and no more"
    ),
}
"""Reviewed exceptions: (module, expression) and why no key can be in it."""

ENCODERS = frozenset(
    {"hexlify", "b2a_hex", "b64encode", "standard_b64encode", "urlsafe_b64encode", "b2a_base64"}
    | {"b32encode", "b16encode", "b85encode"}
)


def violations(source: str) -> Iterator[str]:
    """Yield each forbidden call of a module, as source."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else ""
        name = function.id if isinstance(function, ast.Name) else name
        subject = function.value if isinstance(function, ast.Attribute) else None
        argument = node.args[0] if node.args else None
        if (
            (name == "bytes" and argument is not None and not _is_size(argument))
            or (name in {"hex", "tobytes"} and subject is not None and not _is_public(subject))
            or (name == "from_bytes" and not _is_public(argument))
            or (name in ENCODERS and not _is_public(argument))
        ):
            yield ast.unparse(node)


def _is_size(node: ast.expr) -> bool:
    """A number, literal numbers, len(…), range(…), or by the rule of the house a name in _bytes."""
    if isinstance(node, ast.Call):
        return _last_name(node) in {"len", "range"}
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int)
    return isinstance(node, ast.Tuple | ast.List) or _last_name(node).lower().endswith("_bytes")


def _is_public(node: ast.expr | None) -> bool:
    return node is not None and _last_name(node) in PUBLIC_NAMES


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        return _last_name(node.func)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def key_modules() -> list[str]:
    """Return the modules that handle keys, as paths below src/spike."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        module = path.relative_to(SOURCE).as_posix()
        if module.startswith(KEY_PACKAGES) or "spike.memory" in path.read_text(encoding="utf-8"):
            found.append(module)
    return found


@pytest.mark.parametrize("module", key_modules())
def test_no_key_is_turned_into_what_cannot_be_wiped(module: str) -> None:
    source = (SOURCE / module).read_text(encoding="utf-8")
    found = [call for call in violations(source) if (module, call) not in ALLOWED]
    assert found == [], "review each: is it public? Then name it in ALLOWED, with the reason"


def test_every_exception_is_still_needed() -> None:
    for module, call in ALLOWED:
        assert call in violations((SOURCE / module).read_text(encoding="utf-8")), (module, call)


def test_the_packages_of_keys_are_looked_at() -> None:
    assert {"memory/key_memory.py", "crypto/slot.py", "crypto/record.py"} <= set(key_modules())


@pytest.mark.parametrize(
    "code",
    [
        "bytes(view)",
        "bytes(view[:16])",
        "bytes(memoryview(key))",
        "view.hex()",
        "key.view().__enter__().hex()",
        "view.tobytes()",
        "int.from_bytes(view, 'big')",
        "base64.b64encode(view)",
        "binascii.hexlify(view)",
        "b64encode(root)",
        "x = [f'{view.hex()}']",
    ],
)
def test_the_rule_finds(code: str) -> None:
    assert list(violations(code)), code


@pytest.mark.parametrize(
    "code",
    [
        "bytes()",
        "bytes(32)",
        "bytes((1, 2))",
        "bytes(range(32))",
        "bytes(len(view))",
        "mac(key, message).hex()",
        "bytes(key.size_bytes)",
        "bytes(KEY_BYTES)",
        "bytes.fromhex(text)",
        "context.store_id.hex()",
        "generation.to_bytes(4, 'big')",
    ],
)
def test_the_rule_lets_pass(code: str) -> None:
    assert not list(violations(code)), code
