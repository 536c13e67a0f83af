//! Files mapped into memory, so that loading reads each byte once and keeps none.

use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

/// A file's bytes, read-only, paged in as they are touched.
///
/// The file has to stay as it is while it is mapped: who truncates it takes the process down at the next read. Models
/// are mapped only while they are loaded.
pub struct MappedFile(Mmap);

impl MappedFile {
    /// Maps the file at `path`.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = fs_err::File::open(path)?;
        // SAFETY: the mapping is only read. Nobody may change the file meanwhile, which no program can enforce; that a
        // model file is rewritten in place while it is loaded is the accepted risk, see above.
        let map = unsafe { Mmap::map(file.file())? };
        Ok(Self(map))
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
