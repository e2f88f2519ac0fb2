//! How the responses of a service become bytes, and bytes responses.

use std::error::Error;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Encodes the responses of a service that is under a key.
///
/// What one version of a program has stored, the next has to read for as long as outcomes are kept. What it cannot
/// read is an error for whoever asks for it, and never a reason to run the operation again.
pub trait Codec<T> {
    /// Writes `value` to the end of `to`.
    ///
    /// # Errors
    ///
    /// When it has no encoding; the operation then counts as interrupted.
    fn encode(&self, value: &T, to: &mut Vec<u8>) -> Result<(), Box<dyn Error + Send + Sync>>;

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    ///
    /// When that is not what it is.
    fn decode(&self, encoded: &[u8]) -> Result<T, Box<dyn Error + Send + Sync>>;
}

/// JSON, which operators can read.
#[derive(Clone, Copy, Debug)]
pub struct Json;

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn encode(&self, value: &T, to: &mut Vec<u8>) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(serde_json::to_writer(to, value)?)
    }

    fn decode(&self, encoded: &[u8]) -> Result<T, Box<dyn Error + Send + Sync>> {
        Ok(serde_json::from_slice(encoded)?)
    }
}
