"""What a manifest store says, in few and short fields."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pipeline.credentials import (
    MAX_ACTIONS,
    MAX_CODES,
    MAX_TEXT,
    CredentialAction,
    Credentials,
    CredentialState,
    SignerTrust,
)

_TRUSTED: Final = "signingCredential.trusted"
# Not a fault of the file: the signer is on no list that is known here. `Credentials.trust` says it.
_UNTRUSTED: Final = "signingCredential.untrusted"


def summary_of(store: Mapping[str, Any], *, has_trust_list: bool) -> Credentials:
    """Sum a manifest store up.

    Args:
        store: as `c2pa.Reader.json` gives it; who made the file chose its content.
        has_trust_list: whether the certificate was compared with one.
    """
    manifests = _mapping(store.get("manifests"))
    active = _mapping(manifests.get(str(store.get("active_manifest"))))
    signature = _mapping(active.get("signature_info"))
    results = _mapping(store.get("validation_results"))
    codes = tuple(dict.fromkeys(code for code in _failures(results) if code != _UNTRUSTED))
    is_intact = store.get("validation_state") in ("Valid", "Trusted") and not codes
    succeeded = [_text(each.get("code")) for each in _mappings(_mapping(results.get("activeManifest")).get("success"))]
    trust = SignerTrust.UNCHECKED
    if has_trust_list:
        trust = SignerTrust.TRUSTED if _TRUSTED in succeeded else SignerTrust.UNTRUSTED
    actions = list(_actions(active, in_ingredient=False))
    for label, manifest in manifests.items():
        if label != store.get("active_manifest"):
            actions.extend(_actions(_mapping(manifest), in_ingredient=True))
    return Credentials(
        state=CredentialState.VALID if is_intact else CredentialState.INVALID,
        codes=codes[:MAX_CODES],
        issuer=_text(signature.get("issuer")),
        common_name=_text(signature.get("common_name")),
        trust=trust,
        signed_at=_text(signature.get("time")),
        generator=_generator(active),
        actions=tuple(actions[:MAX_ACTIONS]),
    )


def _failures(results: Mapping[str, Any]) -> Iterator[str]:
    """Codes of checks that failed, of the file and of what it was made from."""
    parts = [results.get("activeManifest")]
    parts += [each.get("validationDeltas") for each in _mappings(results.get("ingredientDeltas"))]
    for part in parts:
        for each in _mappings(_mapping(part).get("failure")):
            if (code := _text(each.get("code"))) is not None:
                yield code


def _generator(manifest: Mapping[str, Any]) -> str | None:
    for each in _mappings(manifest.get("claim_generator_info")):
        name, version = _text(each.get("name")), _text(each.get("version"))
        if name is not None:
            return _text(f"{name} {version or ''}")
    return _text(manifest.get("claim_generator"))


def _actions(manifest: Mapping[str, Any], *, in_ingredient: bool) -> Iterator[CredentialAction]:
    for assertion in _mappings(manifest.get("assertions")):
        if not str(assertion.get("label")).startswith("c2pa.actions"):
            continue
        for each in _mappings(_mapping(assertion.get("data")).get("actions")):
            agent = each.get("softwareAgent")
            source_type = _text(each.get("digitalSourceType"))
            yield CredentialAction(
                action=_text(each.get("action")) or "unknown",
                when=_text(each.get("when")),
                software=_text(agent.get("name") if isinstance(agent, Mapping) else agent),
                # The last part of IPTC's address.
                source_type=None if source_type is None else source_type.rstrip("/").rpartition("/")[2] or None,
                in_ingredient=in_ingredient,
            )


def _text(value: object) -> str | None:
    """One short line without characters that have no picture or turn the direction of writing."""
    if not isinstance(value, str):
        return None
    shown = "".join(c for c in value[: 4 * MAX_TEXT] if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp"))
    return shown.strip()[:MAX_TEXT] or None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: object) -> Iterator[Mapping[str, Any]]:
    return (each for each in value if isinstance(each, Mapping)) if isinstance(value, list) else iter(())
