"""Random numbers as a function of a key, so that any draw can be repeated."""

from hashlib import blake2b

import torch


def key_number(*key: int | str) -> int:
    """An integer in 0..2**63-1 that depends only on the key, not on process or platform."""
    digest = blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator_for(*key: int | str) -> torch.Generator:
    """A separate CPU generator for a key such as `(seed, epoch, index)`.

    The global generators of torch, NumPy and Python are neither read nor advanced.
    """
    return torch.Generator().manual_seed(key_number(*key))
