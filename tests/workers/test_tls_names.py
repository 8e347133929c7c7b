"""Which certificate a client gets for the name that it asks for."""

from typing import Any

import pytest

from preforkd.workers.tls_names import certificate_for, names_in, table_of

TABLE = table_of(
    [(), ("shop.example", "*.shop.example"), ("Admin.Shop.Example.",), ("*.example", "shop.example"), ("10.0.0.1",)]
)


@pytest.mark.parametrize(
    ("requested", "index"),
    [
        (None, 0),
        ("", 0),
        ("elsewhere.test", 0),
        ("shop.example", 1),
        ("SHOP.example", 1),
        ("shop.example.", 1),
        ("www.shop.example", 1),
        ("a.b.shop.example", 0),  # a wildcard is one label
        ("admin.shop.example", 2),  # the exact name counts before the wildcard
        ("other.example", 3),
        (".example", 3),  # nobody's host name; whatever it gets, its client will not trust
        ("example", 0),
        ("*.shop.example", 1),
        ("xn--bcher-kva.shop.example", 1),
    ],
)
def test_each_name_gets_its_certificate(requested: str | None, index: int) -> None:
    assert certificate_for(requested, TABLE) == index


@pytest.mark.parametrize(
    ("certificate", "names"),
    [
        ({}, ()),
        ({"subject": ((("commonName", "old.example"),),)}, ("old.example",)),
        ({"subjectAltName": (("DNS", "a"), ("IP Address", "10.0.0.1"), ("DNS", "*.b"))}, ("a", "*.b")),
        ({"subject": ((("commonName", "x"),),), "subjectAltName": (("DNS", "a"),)}, ("a",)),
        ({"subject": ((("commonName", "x"),),), "subjectAltName": (("IP Address", "10.0.0.1"),)}, ()),
    ],
)
def test_the_names_of_a_certificate(certificate: dict[str, Any], names: tuple[str, ...]) -> None:
    assert names_in(certificate) == names
