"""Which addresses may be dialled for a caller: those on the public internet, whatever Python's own tables say."""

import ipaddress

import pytest

from storage import addresses

SPECIAL = (
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "100.127.255.255", "127.0.0.1", "127.255.255.254",
    "168.63.129.16", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.9", "192.0.0.10",
    "192.0.0.170", "192.0.0.192", "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.1.1", "192.175.48.1",
    "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
    "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::808:808", "64:ff9b:1::7f00:1", "100::1", "100:0:0:1::1", "1fff:ffff::1", "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:1::1", "2001:2::1", "2001:3::1", "2001:4:112::1", "2001:10::1", "2001:20::1",
    "2001:30::1", "2001:1ff:ffff::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::", "2620:4f:8000::1", "3ffe::1", "3fff::1",
    "3fff:fff::1", "4000::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254", "fdff::1", "fe80::1", "febf::1", "fec0::2",
    "feff::1", "ff02::1", "ff0e::1",
    # ISATAP below a public prefix and below none.
    "2606:4700::5efe:7f00:1", "2606:4700::5efe:808:808", "2606:4700:0:0:200:5efe:7f00:1", "fe80::5efe:7f00:1",
)  # fmt: skip

PUBLIC = (
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.1",
    "168.63.129.15", "168.63.129.17", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0",
    "192.0.3.0", "192.88.98.255", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255",
    "2000::1", "2001:200::1", "2001:4860:4860::8888", "2001:db7:ffff::1", "2001:db9::1", "2003::1", "2606:4700:4700::1111",
    "2620:4f:8001::1", "2a00:1450:4001::1", "3ffd::1", "3fff:1000::1",
)  # fmt: skip


@pytest.mark.parametrize("address", SPECIAL)
def test_an_address_that_is_not_public_in_its_own_right_is_refused(address: str) -> None:
    assert not addresses.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed_up_to_the_edges_of_what_is_not(address: str) -> None:
    assert addresses.is_public(ipaddress.ip_address(address))


def test_nothing_is_public_that_python_takes_for_special() -> None:
    everywhere = [ipaddress.IPv4Address(number) for number in range(0, 2**32, 2**16 - 7)]
    everywhere += [ipaddress.IPv6Address((number << 96) | 1) for number in range(0, 2**32, 2**16 - 7)]
    for address in everywhere:
        assert address.is_global or not addresses.is_public(address), address
