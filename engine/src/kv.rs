//! Paged keys and values: the storage, and which block belongs to whom.
//!
//! A full block whose keys and values are computed is remembered under (what stands before it, its tokens), rooted in
//! the adapter version, so that a later sequence with the same beginning takes it over. Keys are compared whole, never
//! by hash alone, and name versions, never adapter names: a replaced adapter cannot meet its predecessor's blocks.

use std::collections::{BTreeMap, HashMap};

use adapters::Version;
use half::f16;
use half::slice::HalfBitsSliceExt;

use crate::kernels::{AttentionShape, BLOCK_TOKENS};

/// Keys and values of every layer, `[layers][blocks][block_elements]`.
pub(crate) struct KvCache {
    /// Kept as bits so that untouched pages cost no memory: the allocator hands out zeroed pages lazily.
    layers: Vec<Vec<u16>>,
    block_elements: usize,
}

impl KvCache {
    pub(crate) fn new(layers: usize, blocks: usize, shape: &AttentionShape) -> Self {
        let block_elements = shape.block_elements();
        Self {
            layers: (0..layers)
                .map(|_| vec![0u16; blocks * block_elements])
                .collect(),
            block_elements,
        }
    }

    pub(crate) fn layer(&self, layer: usize) -> &[f16] {
        self.layers[layer].reinterpret_cast()
    }

    pub(crate) fn layer_mut(&mut self, layer: usize) -> &mut [f16] {
        self.layers[layer].reinterpret_cast_mut()
    }

    /// Copies one block's keys and values in every layer.
    pub(crate) fn copy_block(&mut self, from: u32, to: u32) {
        let (from, to) = (from as usize, to as usize);
        let width = self.block_elements;
        for layer in &mut self.layers {
            layer.copy_within(from * width..(from + 1) * width, to * width);
        }
    }
}

/// What stands before a block: nothing but a root, or another remembered block.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Parent {
    /// The beginning of a sequence of this adapter version (`None`: the base model).
    Root(Option<Version>),
    /// The remembered block of that serial number; serial numbers are never used twice.
    Block(u64),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PrefixKey {
    parent: Parent,
    tokens: [u32; BLOCK_TOKENS],
}

impl PrefixKey {
    fn new(parent: Parent, block: &[u32]) -> Self {
        let tokens = block.try_into().expect("exactly a block of tokens");
        Self { parent, tokens }
    }
}

#[derive(Default)]
struct Block {
    references: usize,
    /// Set while the block can be found by its content.
    remembered: Option<(PrefixKey, u64)>,
    /// When the block became idle, the key into `idle`.
    idle_since: u64,
}

/// Idle remembered blocks are kept up to this share of the cache (one part in so many) as long as they cost memory that
/// was never touched: what the process occupies follows what requests use at a time, plus this.
const IDLE_PART: usize = 4;

/// Who uses which block.
pub(crate) struct BlockPool {
    blocks: Vec<Block>,
    /// Blocks that were used before; the last one given back is the first one handed out.
    free: Vec<u32>,
    /// Blocks from here on were never used: no memory stands behind them yet.
    untouched: u32,
    /// Remembered blocks nobody uses, least recently used first.
    idle: BTreeMap<u64, u32>,
    by_content: HashMap<PrefixKey, u32>,
    next_serial: u64,
    clock: u64,
}

impl BlockPool {
    pub(crate) fn new(blocks: usize) -> Self {
        Self {
            blocks: (0..blocks).map(|_| Block::default()).collect(),
            free: Vec::with_capacity(blocks),
            untouched: 0,
            idle: BTreeMap::new(),
            by_content: HashMap::with_capacity(blocks),
            next_serial: 0,
            clock: 0,
        }
    }

    pub(crate) fn total(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks that can be handed out, remembered idle ones included.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.idle.len() + self.never_used()
    }

    fn never_used(&self) -> usize {
        self.blocks.len() - self.untouched as usize
    }

    /// A block with one reference, or `None` when all are in use.
    pub(crate) fn allocate(&mut self) -> Option<u32> {
        let spare = self.never_used() > 0;
        let block = match self.free.pop() {
            Some(block) => block,
            None if spare && self.idle.len() <= self.blocks.len() / IDLE_PART => {
                self.untouched += 1;
                self.untouched - 1
            }
            None => {
                let (_, block) = self.idle.pop_first()?;
                self.forget(block);
                block
            }
        };
        self.blocks[block as usize].references = 1;
        Some(block)
    }

    /// Leading remembered full blocks of `tokens` that somebody uses now.
    pub(crate) fn shared_prefix(&self, root: Parent, tokens: &[u32]) -> usize {
        let mut parent = root;
        let mut count = 0;
        for chunk in tokens.chunks_exact(BLOCK_TOKENS) {
            let found = self.by_content.get(&PrefixKey::new(parent, chunk));
            let Some(&block) = found.filter(|&&block| self.blocks[block as usize].references > 0)
            else {
                break;
            };
            count += 1;
            parent = self.parent_behind(block);
        }
        count
    }

    /// One more user of a block.
    pub(crate) fn share(&mut self, block: u32) {
        let entry = &mut self.blocks[block as usize];
        if entry.references == 0 {
            self.idle.remove(&entry.idle_since);
        }
        entry.references += 1;
    }

    /// One user fewer of each block.
    pub(crate) fn release(&mut self, table: &[u32]) {
        // The end of a sequence is reused less often than its beginning, so it becomes the older idle block.
        for &block in table.iter().rev() {
            let entry = &mut self.blocks[block as usize];
            entry.references -= 1;
            if entry.references > 0 {
                continue;
            }
            if entry.remembered.is_some() {
                self.clock += 1;
                entry.idle_since = self.clock;
                self.idle.insert(self.clock, block);
            } else {
                self.free.push(block);
            }
        }
    }

    /// The remembered full blocks that `tokens` begins with, each with one more reference, and what a next block would
    /// stand behind.
    pub(crate) fn take_prefix(&mut self, root: Parent, tokens: &[u32]) -> (Vec<u32>, Parent) {
        let mut table = Vec::new();
        let mut parent = root;
        for chunk in tokens.chunks_exact(BLOCK_TOKENS) {
            let key = PrefixKey::new(parent.clone(), chunk);
            let Some(&block) = self.by_content.get(&key) else {
                break;
            };
            self.share(block);
            table.push(block);
            parent = self.parent_behind(block);
        }
        (table, parent)
    }

    /// Remembers a full, computed block and returns what the next block stands behind.
    pub(crate) fn remember(&mut self, parent: Parent, tokens: &[u32], block: u32) -> Parent {
        let key = PrefixKey::new(parent, tokens);
        if let Some(&existing) = self.by_content.get(&key) {
            return self.parent_behind(existing);
        }
        self.next_serial += 1;
        self.by_content.insert(key.clone(), block);
        self.blocks[block as usize].remembered = Some((key, self.next_serial));
        Parent::Block(self.next_serial)
    }

    fn parent_behind(&self, block: u32) -> Parent {
        let (_, serial) = self.blocks[block as usize]
            .remembered
            .as_ref()
            .expect("blocks in by_content are remembered");
        Parent::Block(*serial)
    }

    fn forget(&mut self, block: u32) {
        if let Some((key, _)) = self.blocks[block as usize].remembered.take() {
            self.by_content.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(start: u32) -> Vec<u32> {
        (start..start + BLOCK_TOKENS as u32).collect()
    }

    #[test]
    fn a_prefix_is_found_again_under_its_own_version_only() {
        let mut pool = BlockPool::new(4);
        let version: Version = "ab".repeat(32).parse().expect("a version");
        let root = Parent::Root(Some(version));
        let first = pool.allocate().expect("a free block");
        let second = pool.allocate().expect("a free block");
        let behind = pool.remember(root.clone(), &tokens(0), first);
        pool.remember(behind, &tokens(100), second);
        pool.release(&[first, second]);

        let prompt = [tokens(0), tokens(100), tokens(200)].concat();
        assert_eq!(pool.take_prefix(root, &prompt).0, [first, second]);
        assert!(pool.take_prefix(Parent::Root(None), &prompt).0.is_empty());
        assert_eq!(pool.available(), 2);
    }

    #[test]
    fn the_oldest_idle_block_is_forgotten_first() {
        let mut pool = BlockPool::new(2);
        let root = Parent::Root(None);
        let first = pool.allocate().expect("a free block");
        let second = pool.allocate().expect("a free block");
        pool.remember(root.clone(), &tokens(0), first);
        pool.remember(root.clone(), &tokens(50), second);
        pool.release(&[first]);
        pool.release(&[second]);
        assert_eq!(pool.allocate(), Some(first));
        assert!(pool.take_prefix(root.clone(), &tokens(0)).0.is_empty());
        assert_eq!(pool.take_prefix(root, &tokens(50)).0, [second]);
        assert_eq!(pool.allocate(), None);
    }

    #[test]
    fn untouched_blocks_stay_untouched_while_old_ones_will_do() {
        let mut pool = BlockPool::new(16);
        let root = Parent::Root(None);
        let mut most = 0;
        for request in 0..40 {
            let blocks: Vec<u32> = (0..3)
                .map(|_| pool.allocate().expect("a free block"))
                .collect();
            most = most.max(blocks.iter().copied().max().expect("three blocks"));
            pool.remember(root.clone(), &tokens(100 * request), blocks[0]);
            pool.release(&blocks);
        }
        // Two that were never remembered, and a quarter of the pool with one more that is: 0 to 6.
        assert_eq!(most, 6);
        let newest = pool.take_prefix(root.clone(), &tokens(100 * 39));
        assert_eq!(newest.0.len(), 1);
        assert!(pool.take_prefix(root, &tokens(0)).0.is_empty());
        assert_eq!(pool.available(), 15);
        // When requests need them, all are there.
        assert_eq!((0..15).filter_map(|_| pool.allocate()).count(), 15);
        assert_eq!(pool.allocate(), None);
    }

    #[test]
    fn a_prefix_that_somebody_uses_is_told_from_one_that_lies_idle() {
        let mut pool = BlockPool::new(8);
        let root = Parent::Root(None);
        let (first, second) = (pool.allocate(), pool.allocate());
        let (first, second) = (first.expect("a block"), second.expect("a block"));
        let behind = pool.remember(root.clone(), &tokens(0), first);
        pool.remember(behind, &tokens(50), second);
        let prompt = [tokens(0), tokens(50), tokens(90)].concat();
        assert_eq!(pool.shared_prefix(root.clone(), &prompt), 2);
        pool.release(&[second]);
        assert_eq!(pool.shared_prefix(root.clone(), &prompt), 1);
        assert_eq!(pool.shared_prefix(root, &prompt[1..]), 0);
    }
}
