"""How much enters one matrix product: block sizes by processor and by free memory."""

from __future__ import annotations

from dataclasses import dataclass

# A block of weighted votes needs the whole bank; it may hold this many times the elements of a block of a scan, so
# that a large bank still meets enough items for an efficient product.
_WHOLE_BANK = 4
_BUFFERS = 2
_SHARE_OF_MEMORY = 4


@dataclass(frozen=True)
class Blocks:
    """The largest numbers of `items` and of `bank` vectors in one matrix product."""

    items: int
    bank: int

    @property
    def elements(self) -> int:
        """Similarities in one block."""
        return self.items * self.bank

    def items_for(self, bank_size: int) -> int:
        """How many items a block of the whole bank takes: the fewer, the larger the bank."""
        return max(1, _WHOLE_BANK * self.elements // bank_size)

    def items_keeping(self, k: int) -> int:
        """How many items a block takes if `k` similarities of each are kept: fewer, if they would not fit into it."""
        return min(self.items, max(1, self.elements // max(k, 1)))

    def halved(self) -> Blocks | None:
        """Blocks of half as many elements, or None at the floor."""
        if self.elements <= SMALLEST_BLOCKS.elements:
            return None
        if self.bank > self.items:
            return Blocks(self.items, self.bank // 2)
        return Blocks(self.items // 2, self.bank)


CPU_BLOCKS = Blocks(512, 2048)  # stays in the cache
LARGEST_BLOCKS = Blocks(8192, 16384)  # beyond this a GPU is no faster
SMALLEST_BLOCKS = Blocks(128, 128)


def blocks_for(free_bytes: int, itemsize: int) -> Blocks:
    """The largest blocks whose buffers take a quarter of `free_bytes`, with `itemsize` bytes an element."""
    blocks = LARGEST_BLOCKS
    while blocks.elements * itemsize * _BUFFERS * _WHOLE_BANK * _SHARE_OF_MEMORY > free_bytes:
        smaller = blocks.halved()
        if smaller is None:
            break
        blocks = smaller
    return blocks
