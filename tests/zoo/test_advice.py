"""What libraries say in errors: bounded, and never advice to load unsafely."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest

from guided.errors import library_message

SWITCHES = ("weights_only", "trust_remote_code", "allow_pickle", "safe_globals", "arbitrary code")


def test_torchs_advice_is_left_out() -> None:
    import torch

    file = io.BytesIO()
    torch.save(torch.nn.Linear(1, 1), file)
    file.seek(0)
    with pytest.raises(pickle.UnpicklingError) as caught:
        torch.load(file, weights_only=True)
    assert "weights_only" in str(caught.value)
    message = library_message(caught.value)
    assert "torch.nn.modules.linear.Linear" in message
    assert not any(switch in message for switch in (*SWITCHES, "trust", "\n"))


def test_numpys_advice_is_left_out() -> None:
    file = io.BytesIO()
    np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    file.seek(0)
    with pytest.raises(ValueError, match="allow_pickle") as caught:
        np.load(file)
    assert library_message(caught.value) == "ValueError"


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_sentence_with_a_switch_is_left_out(switch: str) -> None:
    text = f"The file is cut short.\nRun it with {switch}=on; that helps. It has 3 bytes."
    assert library_message(ValueError(text)) == "The file is cut short. that helps. It has 3 bytes"
    assert library_message(KeyError(f"Only {switch}")) == "KeyError"


def test_the_message_is_bounded() -> None:
    keys = ", ".join(f'"_orig_mod.layer.{number}"' for number in range(5000))
    message = library_message(RuntimeError(f"Error in loading:\n\tMissing key(s): {keys}. "))
    assert message.startswith('Error in loading: Missing key(s): "_orig_mod.layer.0"')
    assert len(message) <= 300
    assert message.endswith("...")
    assert library_message(ValueError("")) == "ValueError"
    assert library_message(ValueError(" a\n  b.")) == "a b"
