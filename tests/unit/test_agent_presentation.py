"""testbed.agent.presentation: answers of agents in words."""

import pytest

from testbed.agent.presentation import in_words


@pytest.mark.parametrize("value, words", [
    (True, "yes"),
    (False, "no"),
    (None, "-"),
    ([], "-"),
    (12.5, "12.5"),
    (["2001:db8::1", "2001:db8::2"], "2001:db8::1, 2001:db8::2"),
    ({"mode": "explicit", "served": False, "refused": None}, "mode explicit, served no, refused -"),
    ([{"prefix": "2001:db8:100::/64", "valid_s": 60}], "prefix 2001:db8:100::/64, valid s 60"),
])  # fmt: skip
def test_in_words(value, words):
    assert in_words(value) == words
