"""Manifests are written by anyone: whatever is in one, its summary is short and typed."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.credentials import MAX_ACTIONS, MAX_CODES, MAX_RECORD_BYTES, MAX_TEXT, CredentialState, SignerTrust
from pipeline.manifests.summary import summary_of

odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3 * MAX_TEXT),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
manifest = st.fixed_dictionaries(
    {
        "assertions": st.lists(st.fixed_dictionaries({"label": st.just("c2pa.actions.v2"), "data": odd}), max_size=2)
        | odd
    },
    optional={"signature_info": odd, "claim_generator_info": odd, "claim_generator": odd},
)
store = st.fixed_dictionaries(
    {"active_manifest": st.just("a"), "manifests": st.dictionaries(st.sampled_from(["a", "b"]), manifest) | odd},
    optional={"validation_results": odd, "validation_state": odd},
)


@settings(max_examples=60, deadline=None)
@given(store=store)
def test_odd_manifests_have_a_summary(store: dict[str, Any]) -> None:
    found = summary_of(store, has_trust_list=False)
    assert found.state is CredentialState.INVALID
    assert found.trust is SignerTrust.UNCHECKED


def test_long_manifests_are_cut() -> None:
    actions = [{"action": "\u4e00" * 999, "softwareAgent": "x" * 999, "when": "\u202e" * 999}] * 500
    failures = [{"code": f"{i}" + "y" * 999} for i in range(500)]
    found = summary_of(
        {
            "active_manifest": "a",
            "manifests": {"a": {"assertions": [{"label": "c2pa.actions", "data": {"actions": actions}}]}},
            "validation_results": {"activeManifest": {"failure": failures}},
            "validation_state": "Valid",
        },
        has_trust_list=True,
    )
    assert (len(found.actions), len(found.codes)) == (MAX_ACTIONS, MAX_CODES)
    assert (found.actions[0].action, found.actions[0].when) == ("\u4e00" * MAX_TEXT, None)
    # A state that its own codes contradict is not believed.
    assert found.state is CredentialState.INVALID
    assert found.trust is SignerTrust.UNTRUSTED
    assert len(found.model_copy(update={"actions": ()}).model_dump_json().encode()) < MAX_RECORD_BYTES
