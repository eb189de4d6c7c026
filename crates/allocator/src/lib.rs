//! mimalloc as the program's allocator.
//!
//! | what is asked for                              | of mimalloc            |
//! |------------------------------------------------|------------------------|
//! | alignment of 16 bytes at most, and of its size | `mi_malloc`: a list of free blocks of that size |
//! | more                                           | `mi_malloc_aligned`    |
//!
//! The `mimalloc` crate asks for all of it with `mi_malloc_aligned`. For an alignment above 1, that one takes a block of the right size only if one lies ready; where none
//! does, and the size is no power of two, it takes a larger one, and the blocks of the right size that were given back in between are not collected by it
//! (docs/decisions/0035 has what that costs).
//!
//! This is the one crate with unsafe code of our own. All of it hands what it is given to mimalloc.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_void;

use libmimalloc_sys as mi;

/// What every block of mimalloc's that has so many bytes or more is aligned to (`MI_MAX_ALIGN_SIZE`); smaller ones to their size. Bytes.
const NATURAL_ALIGNMENT: usize = 16;

/// mimalloc. Make it the program's allocator with `#[global_allocator]`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mimalloc;

/// Whether any block of this size will do.
fn is_natural(layout: Layout) -> bool {
    layout.align() <= NATURAL_ALIGNMENT && layout.align() <= layout.size()
}

// SAFETY: mimalloc gives blocks of at least the size asked for, or null; nobody else's, until they are given back; aligned as asked, or by nature (see
// `is_natural`); and keeps what is in them when it resizes them. It does not unwind. Blocks of both kinds are given back and resized by the same functions.
#[expect(unsafe_code, reason = "an allocator is unsafe to implement")]
unsafe impl GlobalAlloc for Mimalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: an alignment is a power of two.
        unsafe { if is_natural(layout) { mi::mi_malloc(size) } else { mi::mi_malloc_aligned(size, align) } }.cast()
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: an alignment is a power of two.
        unsafe { if is_natural(layout) { mi::mi_zalloc(size) } else { mi::mi_zalloc_aligned(size, align) } }.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the caller got it from here, and gives it back once.
        unsafe { mi::mi_free(block.cast::<c_void>()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (block, align) = (block.cast::<c_void>(), layout.align());
        let natural = align <= NATURAL_ALIGNMENT && align <= size;
        // SAFETY: the caller got it from here and uses what comes back in its place; an alignment is a power of two.
        unsafe { if natural { mi::mi_realloc(block, size) } else { mi::mi_realloc_aligned(block, size, align) } }.cast()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A block with the same byte all over, and the size and alignment that it was asked for with.
    struct Block {
        start: *mut u8,
        layout: Layout,
        byte: u8,
    }

    #[expect(unsafe_code, reason = "blocks are written to and read as those who allocate them do")]
    impl Block {
        fn new(layout: Layout, byte: u8, zeroed: bool) -> Self {
            // SAFETY: no layout here is empty.
            let start = unsafe { if zeroed { Mimalloc.alloc_zeroed(layout) } else { Mimalloc.alloc(layout) } };
            let new = Self { start, layout, byte };
            assert!(!zeroed || new.bytes().iter().all(|found| *found == 0), "{layout:?} is not zeroed");
            new.filled()
        }

        fn bytes(&self) -> &[u8] {
            assert!(
                !self.start.is_null() && self.start.addr().is_multiple_of(self.layout.align()),
                "{:?}",
                self.layout
            );
            // SAFETY: the block is ours and has that size; whoever reads what nobody wrote reads what an allocator's zeroes are, or asserts on it.
            unsafe { std::slice::from_raw_parts(self.start, self.layout.size()) }
        }

        fn filled(self) -> Self {
            assert!(self.start.addr().is_multiple_of(self.layout.align()), "{:?}", self.layout);
            // SAFETY: the block is ours and has that size.
            unsafe { self.start.write_bytes(self.byte, self.layout.size()) };
            self
        }

        fn resized(self, size: usize) -> Self {
            // SAFETY: the block is ours, no size is 0, and none is near the greatest.
            let start = unsafe { Mimalloc.realloc(self.start, self.layout, size) };
            let layout = Layout::from_size_align(size, self.layout.align()).expect("sizes here are small");
            let kept = Self {
                start,
                layout: Layout::from_size_align(size.min(self.layout.size()), layout.align()).expect("smaller still"),
                byte: self.byte,
            };
            assert!(
                kept.bytes().iter().all(|found| *found == self.byte),
                "{:?} became {layout:?} and lost something",
                self.layout
            );
            Self { start, layout, byte: self.byte }.filled()
        }

        fn give_back(self) {
            assert!(self.bytes().iter().all(|found| *found == self.byte), "somebody wrote into {:?}", self.layout);
            // SAFETY: the block is ours, and is not used any more.
            unsafe { Mimalloc.dealloc(self.start, self.layout) };
        }
    }

    proptest! {
        /// With every alignment there is, so that both ways are taken and blocks go from one to the other.
        #[test]
        fn blocks_are_aligned_keep_what_is_in_them_and_are_nobody_elses(
            operations in prop::collection::vec((0u8..4, prop_oneof![4 => 1usize..64, 4 => 1usize..5_000, 1 => 500_000usize..700_000], prop_oneof![0u32..6, 0u32..13], any::<usize>()), 1..200),
        ) {
            let mut blocks: Vec<Block> = Vec::new();
            for (number, (operation, size, align, which)) in operations.into_iter().enumerate() {
                let layout = Layout::from_size_align(size, 1 << align).expect("sizes here are small");
                match operation {
                    0 | 1 => blocks.push(Block::new(layout, number as u8, operation == 1)),
                    _ if blocks.is_empty() => {}
                    2 => {
                        let block = blocks.swap_remove(which % blocks.len());
                        blocks.push(block.resized(size));
                    }
                    _ => {
                        let at = which % blocks.len();
                        blocks.swap_remove(at).give_back();
                    }
                }
            }
            blocks.into_iter().for_each(Block::give_back);
        }
    }

    #[test]
    fn every_small_size_is_aligned_by_nature() {
        let blocks: Vec<Block> = (1..=4096usize)
            .flat_map(|size| [1, 2, 4, 8, 16].map(|align| (size, align)))
            .filter_map(|(size, align)| Layout::from_size_align(size, align).ok())
            .map(|layout| Block::new(layout, layout.size() as u8, false))
            .collect();
        blocks.into_iter().for_each(Block::give_back);
    }
}
