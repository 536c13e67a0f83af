//! Weights that are still arriving: what can be told of them before they are all there.

use crate::adapter::{made_for, wanted};
use crate::canonical::ContentHash;
use crate::files::WEIGHTS_FILE;
use crate::tensors::{Calls, Header};
use crate::{AdapterError, BaseModel, Limits, LoraConfig, Manifest, Version};

/// A weights file on its way in. Its header is checked as soon as it is there, against the configuration if that came first,
/// and its content is hashed on the way.
pub struct Arrival {
    config: Option<Vec<u8>>,
    limits: Limits,
    seen: u64,
    state: State,
}

enum State {
    /// What has arrived of a header.
    Header(Vec<u8>),
    Body {
        file_bytes: u64,
        hash: Option<ContentHash>,
    },
}

impl Arrival {
    /// Awaits weights; `config` is the adapter's configuration when it is known already.
    pub fn new(config: Option<&[u8]>, limits: &Limits) -> Self {
        Self {
            config: config.map(<[u8]>::to_vec),
            limits: *limits,
            seen: 0,
            state: State::Header(Vec::new()),
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// Whatever can be told by now: a damaged header, a file that is too large, tensors that the configuration does not call for
    /// or that do not fit `base`, more bytes than the header says.
    pub fn push(&mut self, bytes: &[u8], base: &BaseModel) -> Result<(), AdapterError> {
        self.seen += bytes.len() as u64;
        match &mut self.state {
            State::Header(beginning) => {
                beginning.extend_from_slice(bytes);
                if let Some(header) = Header::read(beginning)? {
                    let beginning = std::mem::take(beginning);
                    let mut hash = self.begin(&header, base)?;
                    if let Some(hash) = &mut hash {
                        hash.weights(&beginning);
                    }
                    let file_bytes = header.file_bytes;
                    self.state = State::Body { file_bytes, hash };
                    self.check_end(file_bytes)?;
                }
                Ok(())
            }
            State::Body { file_bytes, hash } => {
                if let Some(hash) = hash {
                    hash.weights(bytes);
                }
                let file_bytes = *file_bytes;
                self.check_end(file_bytes)
            }
        }
    }

    /// The version of the content, `None` when the configuration was not known while the weights came.
    ///
    /// # Errors
    /// `CorruptWeights` when the file ended before its header says it does, `InvalidJson` for a manifest that is none.
    pub fn finish(self, manifest: Option<&[u8]>) -> Result<Option<Version>, AdapterError> {
        match self.state {
            State::Body { file_bytes, hash } if self.seen == file_bytes => {
                hash.map(|hash| hash.finish(manifest)).transpose()
            }
            State::Body { file_bytes, .. } => Err(AdapterError::CorruptWeights {
                reason: format!(
                    "it has {} bytes and its header says {file_bytes}",
                    self.seen
                ),
            }),
            State::Header(_) => Err(AdapterError::CorruptWeights {
                reason: format!("it ends after {} bytes, within its header", self.seen),
            }),
        }
    }

    fn begin(
        &self,
        header: &Header,
        base: &BaseModel,
    ) -> Result<Option<ContentHash>, AdapterError> {
        if header.file_bytes > self.limits.max_bytes {
            return Err(AdapterError::TooLarge {
                file: WEIGHTS_FILE.to_owned(),
                bytes: header.file_bytes,
                limit: self.limits.max_bytes,
            });
        }
        let Some(config) = &self.config else {
            return Ok(None);
        };
        let parsed = LoraConfig::parse(config)?;
        let wanted = wanted(&parsed, base, &self.limits)?;
        header.check(&Calls {
            wanted: &wanted,
            base,
            made_for: made_for(&parsed, &Manifest::default()),
        })?;
        ContentHash::begin(config, header.file_bytes).map(Some)
    }

    fn check_end(&self, file_bytes: u64) -> Result<(), AdapterError> {
        if self.seen <= file_bytes {
            return Ok(());
        }
        Err(AdapterError::CorruptWeights {
            reason: format!("it goes on after the {file_bytes} bytes that its header says"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{self, LIMITS};

    /// Pushes a file in pieces of that many bytes.
    fn arrive(
        config: Option<&[u8]>,
        weights: &[u8],
        piece: usize,
    ) -> Result<Option<Version>, AdapterError> {
        let mut arrival = Arrival::new(config, &LIMITS);
        for bytes in weights.chunks(piece) {
            arrival.push(bytes, &fixture::base())?;
        }
        arrival.finish(None)
    }

    #[test]
    fn the_version_is_that_of_the_whole_files_whatever_the_pieces() {
        let files = fixture::files();
        let manifest = files.manifest.clone();
        for piece in [1, 7, 100, files.weights.len()] {
            let mut arrival = Arrival::new(Some(&files.config), &LIMITS);
            for bytes in files.weights.chunks(piece) {
                arrival.push(bytes, &fixture::base()).expect("fits");
            }
            let version = arrival.finish(manifest.as_deref()).expect("whole");
            assert_eq!(version, Some(files.version().expect("valid JSON")));
        }
        assert_eq!(arrive(None, &files.weights, 64).expect("whole"), None);
    }

    #[test]
    fn a_file_that_does_not_fit_is_refused_at_its_header() {
        let files = fixture::files();
        let header = 8 + u64::from_le_bytes(*files.weights.first_chunk().expect("8 bytes"));
        let header = usize::try_from(header).expect("small");
        let other = br#"{"peft_type":"LORA","r":3,"lora_alpha":3.0,"target_modules":["v_proj","down_proj"]}"#;
        let mut arrival = Arrival::new(Some(other), &LIMITS);
        let error = arrival.push(&files.weights[..header], &fixture::base());
        assert_eq!(error.expect_err("rank 3").code(), "wrong_shape");
        let mut arrival = Arrival::new(
            None,
            &Limits {
                max_bytes: 10,
                ..LIMITS
            },
        );
        let error = arrival.push(&files.weights[..header], &fixture::base());
        assert_eq!(error.expect_err("10 bytes").code(), "adapter_too_large");
        let mut arrival = Arrival::new(None, &LIMITS);
        let error = arrival.push(&[0xff; 8], &fixture::base());
        assert_eq!(error.expect_err("2^64").code(), "corrupt_weights");
    }

    #[test]
    fn too_few_and_too_many_bytes_are_told() {
        let files = fixture::files();
        let short = arrive(None, &files.weights[..files.weights.len() - 1], 50);
        assert_eq!(short.expect_err("cut off").code(), "corrupt_weights");
        let cut = arrive(None, &files.weights[..20], 50);
        assert_eq!(
            cut.expect_err("within the header").code(),
            "corrupt_weights"
        );
        let mut long = files.weights.clone();
        long.push(0);
        let error = arrive(None, &long, 50).expect_err("one more");
        assert!(error.to_string().contains("goes on after"), "{error}");
    }
}
