from __future__ import annotations

import socket

import pytest

from tests.workers.conftest import free_range
from workers.ports import NoFreePort, is_free, lease, parse_range


def test_the_lowest_port_that_is_neither_leased_nor_in_use():
    ports = parse_range(free_range(4))
    with socket.create_server(("127.0.0.1", ports[1])):
        assert lease(ports, {ports[0]}, "127.0.0.1") == ports[2]
        assert not is_free(ports[1], "127.0.0.1")
    assert lease(ports, {ports[0]}, "127.0.0.1") == ports[1]


def test_the_old_port_is_taken_again_if_it_can_be():
    ports = parse_range(free_range(4))
    assert lease(ports, set(), "127.0.0.1", prefer=ports[3]) == ports[3]
    assert lease(ports, {ports[3]}, "127.0.0.1", prefer=ports[3]) == ports[0]
    assert lease(ports, set(), "127.0.0.1", prefer=1) == ports[0]  # no longer in the range


def test_a_full_range_is_told_of():
    ports = parse_range(free_range(2))
    with pytest.raises(NoFreePort, match="2 leased"):
        lease(ports, set(ports), "127.0.0.1")


@pytest.mark.parametrize("text", ["", "5", "9-5", "0-5", "1-70000", "a-b"])
def test_what_is_no_range_is_refused(text):
    with pytest.raises(ValueError, match="not a port range"):
        parse_range(text)
