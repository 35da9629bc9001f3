from __future__ import annotations

import pytest

from tests.config.loading import faults, loaded


@pytest.mark.parametrize(
    ("argv", "debug"),
    [
        (["-d"], True),
        (["--debug"], True),
        (["--debug=true"], True),
        (["--debug", "true"], True),
        (["--debug=false"], False),
        (["--debug", "False"], False),
        (["-d=false"], False),
        (["--debug", "--debug=false"], False),
        (["--debug=false", "-d"], True),
        (["-dt", "x"], True),
        (["-dtx"], True),
        ([], False),
    ],
)
def test_a_boolean_stands_alone_or_takes_true_or_false(argv: list[str], debug: bool) -> None:
    assert loaded(*argv).options.debug is debug


@pytest.mark.parametrize(
    "argv",
    [["-tx"], ["-t", "x"], ["-t=x"], ["--token=x"], ["--token", "x"], ["--tok=x"], ["-ty", "--token=x"]],
)
def test_a_value_follows_its_flag_in_any_usual_way_and_the_last_counts(argv: list[str]) -> None:
    assert loaded(*argv).options.token == "x"


def test_a_list_gathers_and_takes_values_that_begin_with_dashes() -> None:
    options = loaded(
        "--ray-args=--port=6379",
        "--allow-origins",
        "https://a",
        "--ray-args=--verbose",
        "--allow-origins=https://b,c",
        "--rpc-server-args=rpc-server-cache-dir /var/lib/gpustack/cache/rpc_server/",
    ).options
    assert options.ray_args == ("--port=6379", "--verbose")
    assert options.allow_origins == ("https://a", "https://b,c")
    assert options.rpc_server_args == ("rpc-server-cache-dir /var/lib/gpustack/cache/rpc_server/",)


def test_a_value_may_be_negative_or_look_like_a_flag() -> None:
    assert loaded("--worker-name", "help").options.worker_name == "help"
    assert faults("--port", "-1") == ["flag --port: port must lie between 0 and 65535, not -1"]
    assert loaded("--token", "--debug").options.token == "--debug"


def test_what_is_no_flag_is_told_and_the_rest_is_still_read() -> None:
    assert faults("--prot", "80", "-x", "start", "--port=a", "--", "--token") == [
        "flag --prot: is not known; did you mean --port?",
        "flag -x: is not known",
        "the argument 'start' belongs to no option",
        "the argument '--' belongs to no option",
        "flag --token: needs a value",
        "flag --port: port must be a whole number, not 'a'",
    ]


def test_a_flag_cut_too_short_tells_what_it_could_be() -> None:
    assert faults("--disable-w") == [
        "flag --disable-w: could be any of --disable-worker, --disable-worker-metrics"
    ]


def test_a_boolean_with_another_value_is_told() -> None:
    assert faults("--debug=maybe", "--enable-ray=") == [
        "flag --debug: debug must be true or false, not 'maybe'",
        "flag --enable-ray: enable_ray must be true or false, not ''",
    ]


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["--port=a", "--help"], ["-dh"]])
def test_help_is_printed_whatever_else_is_asked(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        loaded(*argv)
    assert not ended.value.code
    assert "gpustack start [options]" in capsys.readouterr().out
