"""How much enters one matrix product: block sizes by processor and by free memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

_BUFFERS = 2
_SHARE_OF_MEMORY = 4


@dataclass(frozen=True)
class Blocks:
    """The largest numbers of `items` and of `bank` vectors in one matrix product.

    Attributes:
        whole: a block of weighted votes needs the whole bank. It may hold this many times the elements of a block of a
            scan, so that a large bank still meets enough items for an efficient product.
    """

    items: int
    bank: int
    whole: int = 4

    @property
    def elements(self) -> int:
        """Similarities in one block."""
        return self.items * self.bank

    def items_for(self, bank_size: int) -> int:
        """How many items a block of the whole bank takes: the fewer, the larger the bank."""
        return max(1, self.whole * self.elements // bank_size)

    def items_keeping(self, k: int) -> int:
        """How many items a block takes if `k` similarities of each are kept: fewer, if they would not fit into it."""
        return min(self.items, max(1, self.elements // max(k, 1)))

    def halved(self) -> Blocks | None:
        """Blocks of half as many elements, or None at the floor."""
        if self.elements <= SMALLEST_BLOCKS.elements:
            return None
        if self.bank > self.items:
            return replace(self, bank=self.bank // 2)
        return replace(self, items=self.items // 2)

    def of_bank(self, bank_size: int) -> Iterator[slice]:
        """Equal parts of a bank, none larger than a block."""
        parts = -(-bank_size // self.bank)
        edges = [part * bank_size // parts for part in range(parts + 1)]
        return map(slice, edges, edges[1:])


CPU_BLOCKS = Blocks(512, 2048)  # stays in the cache
# Every call of numpy may have to wait for its turn of the interpreter: fewer of them, at the same speed otherwise.
NUMPY_BLOCKS = Blocks(512, 8192, whole=1)
LARGEST_BLOCKS = Blocks(8192, 16384)  # beyond this a GPU is no faster
SMALLEST_BLOCKS = Blocks(128, 128)


def blocks_for(free_bytes: int, itemsize: int) -> Blocks:
    """The largest blocks whose buffers take a quarter of `free_bytes`, with `itemsize` bytes an element."""
    blocks = LARGEST_BLOCKS
    while blocks.elements * itemsize * _BUFFERS * blocks.whole * _SHARE_OF_MEMORY > free_bytes:
        smaller = blocks.halved()
        if smaller is None:
            break
        blocks = smaller
    return blocks
