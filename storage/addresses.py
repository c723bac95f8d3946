"""Which addresses are on the public internet.

A table of our own, since `ipaddress` follows the registries from one patch release to the next. IPv6 has one range of global
unicast addresses (2000::/3), of which the registry's special ones are taken out; whatever lies outside of it, such as the
deprecated site-local range, is refused without being named. IPv4 has no such range: all special ones are named.

Sources: the IANA special-purpose address registries for IPv4 and IPv6 (RFC 6890), the IPv6 address space registry, RFC 5214
(ISATAP), Microsoft's page on 168.63.129.16.
"""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

SPECIAL_V4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared by carriers; a cloud's metadata at 100.100.100.200
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # Azure's internal server: public by number, and answered by the machine's host
            "169.254.0.0/16",  # link-local; the clouds' metadata
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments; a cloud's metadata at 192.0.0.192
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # multicast tunnels
            "192.88.99.0/24",  # relays from 6to4
            "192.168.0.0/16",  # private
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)

GLOBAL_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
SPECIAL_V6 = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4, which holds an IPv4 address
            "2620:4f:8000::/48",  # AS112
            "3ffe::/16",  # the former 6bone
            "3fff::/20",  # documentation
        ),
    )
)

ISATAP = (b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe")
"""First half of the interface identifier below any prefix; the second half is an IPv4 address."""


def is_public(address: Address) -> bool:
    """Whether an address is on the public internet, in its own right and not as a tunnel to or translation of another."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in SPECIAL_V4)
    if address not in GLOBAL_UNICAST_V6 or address.packed[8:12] in ISATAP:
        return False
    return not any(address in network for network in SPECIAL_V6)
