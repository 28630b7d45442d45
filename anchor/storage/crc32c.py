"""CRC-32C (Castagnoli), as RocksDB masks it. Slow: for a damaged block, not for a database."""

from __future__ import annotations

_POLYNOMIAL = 0x82F63B78  # reflected


def _byte_remainder(byte: int) -> int:
    remainder = byte
    for _ in range(8):
        remainder = (remainder >> 1) ^ (_POLYNOMIAL if remainder & 1 else 0)
    return remainder


_TABLE = [_byte_remainder(byte) for byte in range(256)]


def prefix_with_masked_crc(content: bytes, masked_crc: int) -> int | None:
    """Give the length of the shortest prefix of ``content`` that has this masked CRC."""
    wanted = _unmask(masked_crc) ^ 0xFFFFFFFF
    remainder = 0xFFFFFFFF
    table = _TABLE
    for position, byte in enumerate(content):
        remainder = table[(remainder ^ byte) & 0xFF] ^ (remainder >> 8)
        if remainder == wanted:
            return position + 1
    return None


def masked_crc(content: bytes) -> int:
    """Give the masked CRC of ``content``."""
    remainder = 0xFFFFFFFF
    table = _TABLE
    for byte in content:
        remainder = table[(remainder ^ byte) & 0xFF] ^ (remainder >> 8)
    crc = remainder ^ 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _unmask(masked_crc: int) -> int:
    """RocksDB rotates a CRC and adds a constant, so that a CRC of CRCs stays a good one."""
    rotated = (masked_crc - 0xA282EAD8) & 0xFFFFFFFF
    return ((rotated >> 17) | (rotated << 15)) & 0xFFFFFFFF
