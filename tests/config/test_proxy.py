"""Which address is reached through which proxy, for whatever people have in their shells."""

from __future__ import annotations

import pytest

from gpustack.config.proxy import environment_of_others, exempted_to_others, read_proxies
from tests.config.loading import faults, loaded


def way(env: dict[str, str], url: str) -> str | None:
    scheme, _, place = url.partition("://")
    host, _, port = (
        place.rpartition(":") if place.count(":") == 1 or place.startswith("[") else (place, "", "")
    )
    if place.startswith("[") and place.endswith("]"):
        host, port = place, ""
    found = read_proxies(env).route(scheme, host or place, int(port) if port else None)
    return None if found is None else found.fault or found.url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://proxy:3128", "http://proxy:3128"),
        ("http://proxy:3128/", "http://proxy:3128"),
        ("proxy:3128", "http://proxy:3128"),
        ("proxy", "http://proxy:80"),
        ("HTTP://Proxy.Example:3128", "http://proxy.example:3128"),
        ("https://proxy", "https://proxy:443"),
        ("socks5://proxy", "socks5://proxy:1080"),
        ("socks5h://proxy:1", "socks5h://proxy:1"),
        ("socks://127.0.0.1:1080/", "socks5://127.0.0.1:1080"),
        ("10.0.0.1:3128", "http://10.0.0.1:3128"),
        ("[fd00::1]:3128", "http://[fd00::1]:3128"),
        ("http://[fd00::1]", "http://[fd00::1]:80"),
        ("http://me:pass@proxy:3128", "http://me:pass@proxy:3128"),
        ("me:pass@proxy:3128", "http://me:pass@proxy:3128"),
        ("http://me@proxy", "http://me@proxy:80"),
        ("http://me:p%40ss%2F@proxy", "http://me:p%40ss%2F@proxy:80"),
        ("http://me:p@ss@proxy:3128", "http://me:p%40ss@proxy:3128"),
        ("  http://proxy:3128 \n", "http://proxy:3128"),
        ("http://b\u00fccher.example:1", "http://xn--bcher-kva.example:1"),
    ],
)
def test_a_proxy_is_read_in_every_form(text: str, url: str) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        assert way({name: text}, "http://hub.example") == url
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        assert way({name: text}, "https://hub.example") == url
    assert way({"HTTPS_PROXY": text}, "http://hub.example") is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("socks4://127.0.0.1:1080", "SOCKS 4, which is not spoken here"),
        ("socks4a://127.0.0.1:1080", "SOCKS 4, which is not spoken here"),
        ("ftp://proxy:1", "the scheme is none of these"),
        ("http://", "the host is none"),
        ("http://:3128", "the host is none"),
        ("http://me:Hunter2@", "the host is none"),
        ("http://proxy:port", "the port is none"),
        ("http://proxy:0", "the port is none"),
        ("http://proxy:99999", "the port is none"),
        ("http://proxy:0000999999", "the port is none"),
        ("http://proxy:" + "9" * 5000, "the port is none"),
        ("http://[::1", "the host is none"),
        ("http://a b:1", "the host is none"),
        ("http://proxy: 3128", "the port is none"),
        ('"http://proxy:3128"', "the scheme is none of these"),
        ("'proxy:3128'", "the port is none"),
        ("http://me:Hunter2/x@proxy:3128", "%2F"),
        ("http://me:Hunter2#x@proxy:3128", "%23"),
        ("http://me:Hunter2?x@proxy:3128", "%3F"),
        ("http://me:Hunter2\nx@proxy", "must not hold a line break"),
        ("http://me:Hunter2\x00@proxy", "must not hold the control character U+0000"),
        ("socks5://me:" + "Hunter2" * 50 + "@proxy", "255 bytes"),
        ("http://caf\udce9", "must be UTF-8 text"),
        ("http://..", "the host is none"),
    ],
)
def test_what_is_no_proxy_is_told_by_its_variable_and_without_its_password(text: str, told: str) -> None:
    for variable in ("HTTP_PROXY", "all_proxy"):
        found = read_proxies({variable: text})
        (fault,) = found.faults
        assert fault.startswith(f"{variable} ") and told in fault
        assert "Hunter2" not in fault and "Hunter2" not in repr(found)
        assert way({variable: text}, "http://hub.example") == fault, "nothing goes out directly instead"


def test_lower_case_wins_and_an_empty_one_takes_back_the_other() -> None:
    both = {"HTTP_PROXY": "http://upper", "http_proxy": "http://lower"}
    assert way(both, "http://x") == "http://lower:80"
    assert way({**both, "http_proxy": ""}, "http://x") is None
    assert way({"HTTP_PROXY": " ", "ALL_PROXY": "http://all"}, "http://x") == "http://all:80"
    assert way({"HTTPS_PROXY": "http://own", "ALL_PROXY": "http://all"}, "https://x") == "http://own:80"
    assert way({}, "http://x") is None


@pytest.mark.parametrize(
    ("exempt", "url", "direct"),
    [
        ("example.com", "https://example.com", True),
        ("example.com", "https://hub.example.com", True),
        ("example.com", "https://myexample.com", False),
        ("example.com", "https://example.com.evil", False),
        (".example.com", "https://hub.example.com", True),
        (".example.com", "https://example.com", True),
        ("*.example.com", "https://hub.example.com", True),
        ("*.example.com", "https://example.com", False),
        ("EXAMPLE.com", "https://Hub.Example.COM", True),
        ("example.com.", "https://example.com", True),
        ("example.com", "https://example.com.", True),
        ("b\u00fccher.example", "https://xn--bcher-kva.example", True),
        ("local", "https://printer.local", True),
        ("*", "https://anything", True),
        ("*", "https://10.1.2.3", True),
        ("10.*", "https://10.1.2.3", True),
        ("192.168.*", "https://10.1.2.3", False),
        ("10.0.0.0/8", "https://10.1.2.3", True),
        ("10.0.0.0/8", "https://11.1.2.3", False),
        ("10.1.2.3/8", "https://10.9.9.9", True),
        ("10.0.0.0/8", "https://ten.example", False),
        ("10.0.0.1", "https://10.0.0.1", True),
        ("10.0.0.1", "https://10.0.0.10", False),
        ("10.0.0.1", "https://167772161", True),
        ("0.0.1", "https://10.0.0.1", False),
        ("fd00::1", "https://[fd00::1]", True),
        ("[fd00::1]", "https://[fd00:0::1]", True),
        ("fd00::/8", "https://[fd12::3]", True),
        ("fd00::/8", "https://[fe80::3]", False),
        ("::ffff:10.0.0.1", "https://10.0.0.1", True),
        ("10.0.0.1", "https://[::ffff:10.0.0.1]", True),
        ("hub.example:8443", "https://hub.example:8443", True),
        ("hub.example:8443", "https://hub.example", False),
        ("hub.example:443", "https://hub.example", True),
        ("10.0.0.1:80", "http://10.0.0.1", True),
        ("10.0.0.1:80", "http://10.0.0.1:81", False),
        ("[fd00::1]:81", "http://[fd00::1]:81", True),
        ("[fd00::1]:81", "http://[fd00::1]:82", False),
        ("http://hub.example", "http://hub.example", True),
        ("http://hub.example", "https://hub.example", False),
        ("a.example, b.example", "https://b.example", True),
        ("a.example b.example", "https://b.example", True),
        ("a.example;b.example", "https://b.example", True),
        (" , ,", "https://b.example", False),
        ("10.0.0.0/99,b.example", "https://b.example", True),
        ("", "http://localhost:1", True),
        ("", "http://127.0.0.1", True),
        ("", "http://127.8.8.8", True),
        ("", "http://2130706433", True),
        ("", "http://[::1]:80", True),
        ("", "http://[::ffff:127.0.0.1]", True),
        ("", "http://gpustack.localhost", True),
        ("", "http://0.0.0.0", True),
        ("", "http://10.0.0.1", False),
    ],
)
def test_no_proxy_exempts_hosts_suffixes_addresses_networks_and_ports(
    exempt: str, url: str, direct: bool
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        env = {"ALL_PROXY": "http://proxy:1", name: exempt}
        assert way(env, url) == (None if direct else "http://proxy:1")


@pytest.mark.parametrize(
    "entry", ["10.0.0.0/99", "a/b", "host:port", "host:99999", "ftp://x", "[::1", "a_[b", "\x00"]
)
def test_an_entry_of_no_proxy_that_means_nothing_is_told(entry: str) -> None:
    found = read_proxies({"NO_PROXY": f"a.example,{entry}"})
    (fault,) = found.faults
    assert fault.startswith("NO_PROXY has ") and "is passed over" in fault
    assert fault.isprintable()


def test_programs_of_others_get_what_they_understand() -> None:
    env = {
        "ALL_PROXY": "socks://me:p@ss@proxy",
        "https_proxy": "proxy:3128",
        "NO_PROXY": ".a.example,*.b.example,10.1.2.3/8,fd00::1,c.example:81,d.*",
        "PATH": "/bin",
    }
    routes = read_proxies(env)
    told = environment_of_others(routes, env)
    exempt = "localhost,127.0.0.0/8,::1,a.example,.b.example,10.0.0.0/8,fd00::1/128"
    assert told == {
        "PATH": "/bin",
        "HTTP_PROXY": "socks5://me:p%40ss@proxy:1080",
        "http_proxy": "socks5://me:p%40ss@proxy:1080",
        "HTTPS_PROXY": "http://proxy:3128",
        "https_proxy": "http://proxy:3128",
        "NO_PROXY": exempt,
        "no_proxy": exempt,
    }
    assert exempted_to_others(routes)[1] == ["c.example:81", "d.*"]
    assert exempted_to_others(read_proxies({"NO_PROXY": "a,*"})) == ("*", [])


def test_the_start_tells_what_is_wrong_and_starts() -> None:
    env = {"ALL_PROXY": "socks4://127.0.0.1:1080", "NO_PROXY": "10.0.0.0/99"}
    warnings = loaded(env=env).warnings
    assert [one.partition(" ")[0] for one in warnings] == ["ALL_PROXY", "NO_PROXY"]
    assert faults(env=env) == []
    assert loaded(env={"ALL_PROXY": "socks5://127.0.0.1:1080", "NO_PROXY": "10.0.0.0/8"}).warnings == ()
    (unheard,) = loaded(
        "--enable-hf-xet", env={"ALL_PROXY": "http://proxy", "NO_PROXY": "a.example,b.example:81"}
    ).warnings
    assert "Xet" in unheard and unheard.endswith(": b.example:81.")


def test_a_variable_in_capital_and_small_letters_is_told_to_count_for_nothing() -> None:
    found = read_proxies(
        {"Http_Proxy": "http://me:Hunter2@proxy", "No_Proxy": "*", "https_proxy": "http://own"}
    )
    assert found.faults == (
        "Http_Proxy is not read: write HTTP_PROXY or http_proxy",
        "No_Proxy is not read: write NO_PROXY or no_proxy",
    )
    assert found.route("http", "hub.example", None) is None
    assert found.route("https", "hub.example", None) is not None
