//! How an outcome is written: one frame around JSON, or around what a layer encodes itself.
//!
//! ```text
//! byte 0    version of the frame: 1
//! byte 1    1 if the rest is sealed, else 0
//! the rest  the outcome
//! ```

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::KeyId;
use crate::rejected::Idempotency as Why;

const VERSION: u8 = 1;
const PLAIN: u8 = 0;
const SEALED: u8 = 1;
const HEADER: usize = 2;

/// Encrypts outcomes before they are stored.
///
/// What was sealed with a key that is no longer known is an error for whoever asks for it, and never a reason to run
/// the operation again. So keep old keys for as long as outcomes are kept.
pub trait Sealer: Send + Sync {
    /// Encrypts `outcome`. Bind it to `id`, so that it cannot be moved to another record.
    ///
    /// # Errors
    ///
    /// When it cannot be encrypted; the operation then counts as interrupted.
    fn seal(&self, id: KeyId, outcome: &[u8]) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>>;

    /// Decrypts what [`seal`](Self::seal) made.
    ///
    /// # Errors
    ///
    /// When it cannot be decrypted.
    fn open(&self, id: KeyId, sealed: &[u8]) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>>;
}

/// Writes and reads outcomes.
#[derive(Clone)]
pub(crate) struct Codec {
    pub(crate) sealer: Option<Arc<dyn Sealer>>,
    /// The longest outcome in bytes, before it is sealed.
    pub(crate) limit: usize,
}

impl Codec {
    pub(crate) fn encode<T: Serialize>(&self, id: KeyId, value: &T) -> Result<Bytes, Why> {
        self.encode_by(id, |frame| serde_json::to_writer(frame, value))
    }

    /// A frame around what `encode` writes.
    pub(crate) fn encode_by<E>(
        &self,
        id: KeyId,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Bytes, Why> {
        let mut frame = vec![VERSION, PLAIN];
        encode(&mut frame).map_err(|_| Why::NotStorable { limit: None })?;
        self.seal(id, frame)
    }

    pub(crate) fn decode<T: DeserializeOwned>(&self, id: KeyId, frame: &Bytes) -> Result<T, Why> {
        self.decode_by(id, frame, |outcome| serde_json::from_slice(outcome))
    }

    /// What `decode` reads inside of a frame.
    pub(crate) fn decode_by<T, E>(
        &self,
        id: KeyId,
        frame: &Bytes,
        decode: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> Result<T, Why> {
        let outcome = self.read(id, frame)?;
        decode(&outcome).map_err(|_| Why::NotReplayable)
    }

    /// What is inside of a frame.
    pub(crate) fn read(&self, id: KeyId, frame: &Bytes) -> Result<Bytes, Why> {
        match (frame.get(..HEADER), &self.sealer) {
            (Some([VERSION, PLAIN]), _) => Ok(frame.slice(HEADER..)),
            (Some([VERSION, SEALED]), Some(sealer)) => {
                let opened = sealer.open(id, &frame[HEADER..]);
                opened.map(Bytes::from).map_err(|_| Why::NotReplayable)
            }
            _ => Err(Why::NotReplayable),
        }
    }

    fn seal(&self, id: KeyId, mut frame: Vec<u8>) -> Result<Bytes, Why> {
        if frame.len() - HEADER > self.limit {
            return Err(Why::NotStorable {
                limit: Some(self.limit),
            });
        }
        if let Some(sealer) = &self.sealer {
            let sealed = sealer.seal(id, &frame[HEADER..]);
            let sealed = sealed.map_err(|_| Why::NotStorable { limit: None })?;
            frame.truncate(HEADER);
            frame[1] = SEALED;
            frame.extend(sealed);
        }
        Ok(Bytes::from(frame))
    }
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Codec")
            .field("sealed", &self.sealer.is_some())
            .field("limit", &self.limit)
            .finish()
    }
}
