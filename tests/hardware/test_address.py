"""The address others reach us by is not loopback, whoever is asked about."""

from __future__ import annotations

import ipaddress

import pytest

from gpustack.hardware.address import find_address


@pytest.mark.parametrize(
    "towards", [None, "127.0.0.1", "localhost", "no.such.host.invalid", "bad host", "x" * 300]
)
def test_the_address_found_is_never_loopback(towards: str | None) -> None:
    found = find_address(towards)
    if found is not None:  # a machine without a network has none
        address = ipaddress.ip_address(found)
        assert not address.is_loopback and not address.is_link_local and not address.is_unspecified


def test_whom_we_want_to_reach_decides() -> None:
    found = find_address()
    assert found is None or find_address(found) == found
