//! Fetching text8 from its home.
use crate::{CorpusError, Progress};
use std::path::{Path, PathBuf};
/// A packed text on a server.
#[derive(Clone, Debug)]
pub struct Remote {}
impl Remote {
    /// text8.
    pub fn text8() -> Self {
        Self {}
    }
}
/// Fetches.
///
/// # Errors
///
/// Always, as yet.
pub fn fetch(
    _remote: &Remote,
    _cache: &Path,
    _progress: &mut dyn FnMut(Progress),
) -> Result<PathBuf, CorpusError> {
    Err(CorpusError::NoCache)
}
/// The folder for downloads.
///
/// # Errors
///
/// There is none.
pub fn cache_folder() -> Result<PathBuf, CorpusError> {
    Err(CorpusError::NoCache)
}
