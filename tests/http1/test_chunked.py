"""The chunked coding survives being cut anywhere, and breaks loudly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.http1.chunked import LAST_CHUNK, ChunkDecoder, ChunkError, encode_chunk


def decode(wire: bytes) -> tuple[bytes, bool, bytes]:
    decoder = ChunkDecoder()
    return decoder.feed(wire), decoder.done, decoder.rest


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.binary(max_size=20), st.data())
def test_what_is_encoded_is_decoded_however_it_is_cut(
    chunks: list[bytes], after: bytes, data: st.DataObject
) -> None:
    wire = b"".join(encode_chunk(chunk) for chunk in chunks) + LAST_CHUNK
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire) - 1), max_size=6)))
    pieces = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    decoder = ChunkDecoder()
    out = b"".join(decoder.feed(piece) for piece in pieces[:-1])
    assert not decoder.done
    out += decoder.feed(pieces[-1] + after)
    assert (out, decoder.done, decoder.rest) == (b"".join(chunks), True, after)


def test_extensions_and_trailers_are_passed_over() -> None:
    wire = b'5;a="b"\r\nhello\r\n1 ;x\r\n!\r\n0\r\nx: y\r\nz: w\r\n\r\nGET'
    assert decode(wire) == (b"hello!", True, b"GET")
    decoder = ChunkDecoder()
    assert b"".join(decoder.feed(wire[i : i + 1]) for i in range(len(wire) - 3)) == b"hello!"
    assert decoder.done


@pytest.mark.attack("smuggling")
@pytest.mark.parametrize(
    "wire",
    [
        b"+5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"5_0\r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"5 \r\nhello\r\n",
        b"\r\nhello\r\n",
        b"-1\r\n",
        b"g\r\n",
        b"f" * 17 + b"\r\n",
        b"5\nhello\r\n",
        b"5;a\nb\r\nhello\r\n",
        b"5;a\rb\r\nhello\r\n",
        b"5\r\nhelloX\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5;" + b"x" * 300,
        b"0\r\n\nGET / HTTP/1.1\r\n\r\n",
        b"0\r\n folded\r\n\r\n",
        b"0\r\n" + b"x: y\r\n" * 5000,
    ],
)
def test_a_broken_coding_is_an_error(wire: bytes) -> None:
    with pytest.raises(ChunkError):
        decode(wire)


@pytest.mark.attack("parser")
@given(
    st.lists(
        st.binary(max_size=30) | st.sampled_from([b"5\r\nhello\r\n", b"0\r\n", b"\r\n", b"a;b"]), max_size=6
    )
)
def test_any_bytes_are_decoded_or_an_error(pieces: list[bytes]) -> None:
    decoder = ChunkDecoder()
    try:
        for piece in pieces:
            if not decoder.done:
                decoder.feed(piece)
    except ChunkError:
        pass
    else:
        assert isinstance(decoder.done, bool)
