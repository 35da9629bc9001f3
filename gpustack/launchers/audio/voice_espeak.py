"""espeak-ng, by the library that espeakng-loader brings: voices without weights, in many languages."""

from __future__ import annotations

import ctypes

from .voice_process import Sink

_SYNCHRONOUS = 2
_BUFFER_MS = 200
_UTF8 = 1
_BY_CHARACTER = 1
_RATE = 1
_WORDS_PER_MINUTE = 175
_SLOWEST, _FASTEST = 80, 450
_DEFAULT = "en-us"
_OK = 0

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class _Voice(ctypes.Structure):
    """``espeak_VOICE`` of ``speak_lib.h``."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


class EspeakVoices:
    """One voice for each language, by its code."""

    def __init__(self) -> None:
        import espeakng_loader

        library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._rate = library.espeak_Initialize(
            _SYNCHRONOUS, _BUFFER_MS, espeakng_loader.get_data_path().encode(), 0
        )
        if self._rate <= 0:
            raise RuntimeError("espeak-ng does not find its data")
        library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
        library.espeak_Synth.argtypes = (
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_void_p,
        )
        self._library = library
        found = _codes(library)
        first = [_DEFAULT] if _DEFAULT in found else []
        self.voices = (*first, *sorted(found - set(first)))

    def speak(self, text: str, voice: str, speed: float, sink: Sink) -> None:
        """As ``VoiceLibrary``. The speed is kept between 80 and 450 words a minute, the least and the most there."""
        if self._library.espeak_SetVoiceByName(voice.encode()) != _OK:
            raise ValueError(f"espeak-ng has no voice {voice}")
        words = min(max(round(_WORDS_PER_MINUTE * speed), _SLOWEST), _FASTEST)
        self._library.espeak_SetParameter(_RATE, words, 0)
        stopped = False

        def take(samples: ctypes._Pointer[ctypes.c_short], count: int, _: object) -> int:
            nonlocal stopped
            if samples and count > 0 and not stopped:
                stopped = not sink(self._rate, ctypes.string_at(samples, 2 * count))
            return int(stopped)

        callback = _Callback(take)
        self._library.espeak_SetSynthCallback(callback)
        encoded = text.replace("\0", " ").encode() + b"\0"
        if self._library.espeak_Synth(encoded, len(encoded), 0, _BY_CHARACTER, 0, _UTF8, None, None) != _OK:
            raise RuntimeError("espeak-ng failed")


def _codes(library: ctypes.CDLL) -> set[str]:
    """The code of each voice: what follows a byte of priority in its list of languages."""
    found = set()
    listed = library.espeak_ListVoices(None)
    position = 0
    while voice := listed[position]:
        raw = ctypes.string_at(voice.contents.languages + 1) if voice.contents.languages else b""
        if raw:
            found.add(raw.decode("utf-8", "replace"))
        position += 1
    return found
