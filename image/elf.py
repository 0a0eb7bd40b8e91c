"""Reads the symbols of a shared library, and writes one whose functions end the process.

Only what a 64-bit little-endian ELF file needs is here (System V ABI, chapters 4 and 5). No compiler takes part, so an
image for another processor is built as any other.
"""

from __future__ import annotations

import struct

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_DYNAMIC = struct.Struct("<QQ")

_PAGE = 0x10000
"""The largest page of the processors here: code and data lie on pages of their own."""

_TRAPS = {62: b"\x0f\x0b", 183: b"\x00\x00\x00\x00"}
"""An instruction that no processor of the kind has: ``ud2`` of x86-64, ``udf`` of AArch64."""

_NULL, _HASH, _STRTAB, _SYMTAB, _STRSZ, _SYMENT, _SONAME = 0, 4, 5, 6, 10, 11, 14
_LOAD, _DYNAMIC_SEGMENT, _STACK, _DYNSYM = 1, 2, 0x6474E551, 11
_READ, _WRITE, _RUN = 4, 2, 1


def machine_of(library: bytes) -> int:
    """The processor that a library is for, as ELF numbers them."""
    return int(_HEADER.unpack_from(library)[2])


def symbols_of(library: bytes) -> tuple[frozenset[str], frozenset[str]]:
    """The dynamic symbols of a library: those that it defines, and those that it expects of others."""
    header = _HEADER.unpack_from(library)
    offset, size, count = header[6], header[11], header[12]
    sections = [_SECTION.unpack_from(library, offset + size * place) for place in range(count)]
    defined, expected = set(), set()
    for section in sections:
        if section[1] != _DYNSYM:
            continue
        names = sections[section[6]][4]
        for entry in range(section[4], section[4] + section[5], _SYMBOL.size):
            name, _, _, where, _, _ = _SYMBOL.unpack_from(library, entry)
            start = names + name
            (expected if where == 0 else defined).add(library[start : library.index(b"\0", start)].decode())
    return frozenset(defined) - {""}, frozenset(expected) - {""}


def stub(machine: int, soname: str, functions: frozenset[str]) -> bytes:
    """A library of a name, in which each function is an instruction that ends the process (SIGILL).

    Args:
        machine: The processor, see `machine_of`.
        soname: What others load it by.
        functions: What it defines.
    """
    names, places = bytearray(b"\0"), []
    for name in (soname, *sorted(functions)):
        places.append(len(names))
        names += name.encode() + b"\0"
    count = len(functions) + 1  # the first symbol is no symbol
    hash_at = _HEADER.size + 4 * _SEGMENT.size
    symbols_at = -(-(hash_at + 4 * (3 + count)) // 8) * 8
    names_at = symbols_at + count * _SYMBOL.size
    code_at = -(-(names_at + len(names)) // 8) * 8
    dynamic_at = code_at + 8
    # One bucket: a chain through all symbols. There are twenty.
    chain = [1, count, 1 % count, 0, *(place % count for place in range(2, count + 1))]
    symbols = (
        _SYMBOL.pack(0, 0, 0, 0, 0, 0)
        + b"".join(
            _SYMBOL.pack(place, 0x12, 0, 1, code_at, 0)  # 0x12: a global function; 1: defined, in whatever section
            for place in places[1:]
        )
    )
    dynamic = b"".join(
        _DYNAMIC.pack(*pair)
        for pair in (
            (_SONAME, places[0]), (_HASH, hash_at), (_STRTAB, names_at), (_SYMTAB, symbols_at),
            (_STRSZ, len(names)), (_SYMENT, _SYMBOL.size), (_NULL, 0),
        )
    )  # fmt: skip
    size, moved = dynamic_at + len(dynamic), dynamic_at + _PAGE
    segments = (
        (_LOAD, _READ | _RUN, 0, 0, 0, dynamic_at, dynamic_at, _PAGE),
        (_LOAD, _READ | _WRITE, dynamic_at, moved, moved, len(dynamic), len(dynamic), _PAGE),
        (_DYNAMIC_SEGMENT, _READ | _WRITE, dynamic_at, moved, moved, len(dynamic), len(dynamic), 8),
        (_STACK, _READ | _WRITE, 0, 0, 0, 0, 0, 16),
    )
    parts = {
        0: _HEADER.pack(b"\x7fELF\x02\x01\x01", 3, machine, 1, 0, _HEADER.size, 0, 0, _HEADER.size, _SEGMENT.size,
                        len(segments), 0, 0, 0)
        + b"".join(_SEGMENT.pack(*segment) for segment in segments),
        hash_at: struct.pack(f"<{len(chain)}I", *chain),
        symbols_at: symbols,
        names_at: bytes(names),
        code_at: _TRAPS[machine],
        dynamic_at: dynamic,
    }  # fmt: skip
    library = bytearray(size)
    for place, part in parts.items():
        library[place : place + len(part)] = part
    return bytes(library)
