//! Packing a model's weights: the work of loading, shared among threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::ModelConfig;
use crate::error::LoadError;
use crate::kernels::{Arena, PackedMatrix};
use crate::source::{Part, StoredMatrix, TensorId, TensorReader};

/// One transformer block.
pub(crate) struct PackedLayer {
    pub(crate) attention_norm: Vec<f32>,
    /// `[query | key | value, hidden]`.
    pub(crate) query_key_value: PackedMatrix,
    /// `[query | key | value]`.
    pub(crate) query_key_value_bias: Option<Vec<f32>>,
    /// Norms of every query head and every key head, `[head_dim]` each.
    pub(crate) query_key_norms: Option<[Vec<f32>; 2]>,
    pub(crate) output: PackedMatrix,
    /// Norm of what attention adds to the residual stream.
    pub(crate) post_attention_norm: Option<Vec<f32>>,
    pub(crate) feed_forward_norm: Vec<f32>,
    /// `[gate | up, hidden]`.
    pub(crate) gate_up: PackedMatrix,
    pub(crate) down: PackedMatrix,
    /// Norm of what the feed-forward block adds to the residual stream.
    pub(crate) post_feed_forward_norm: Option<Vec<f32>>,
}

/// Every weight of a model, packed.
pub(crate) struct PackedWeights {
    pub(crate) layers: Vec<PackedLayer>,
    /// `None` when the head serves.
    pub(crate) embedding: Option<PackedMatrix>,
    pub(crate) output_norm: Vec<f32>,
    pub(crate) head: PackedMatrix,
}

/// Packs tensors as they are read.
pub(crate) struct Packer<'a> {
    pub(crate) reader: TensorReader<'a>,
    pub(crate) config: &'a ModelConfig,
    /// Dequantise every matrix to f32.
    pub(crate) dense: bool,
    /// Where the matrices go.
    pub(crate) arena: Arena,
}

/// A piece of the work and, once it is done, its result.
enum Piece {
    Table(PackedMatrix),
    Layer(Box<PackedLayer>),
}

impl Packer<'_> {
    /// Packs everything on `threads` threads. The tables come first: each is as large as many layers, and no thread
    /// should begin one when the others are done.
    pub(crate) fn pack(&self, threads: usize) -> Result<PackedWeights, LoadError> {
        let tables = match self.config.decoder.tied_head {
            true => vec![TensorId::Embedding],
            false => vec![TensorId::Head, TensorId::Embedding],
        };
        let count = tables.len() + self.config.layers;
        let next = AtomicUsize::new(0);
        let pieces: Vec<Mutex<Option<Piece>>> = (0..count).map(|_| Mutex::new(None)).collect();
        let work = || -> Result<(), LoadError> {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(place) = pieces.get(index) else {
                    return Ok(());
                };
                let piece = match tables.get(index) {
                    Some(table) => Piece::Table(self.matrix(&[*table])?),
                    None => Piece::Layer(Box::new(self.layer(index - tables.len())?)),
                };
                *place.lock().expect("nothing panics while it holds a piece") = Some(piece);
            }
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut outcome = work();
            for worker in workers {
                let other = worker
                    .join()
                    .expect("packing reports errors, it does not panic");
                outcome = outcome.and(other);
            }
            outcome
        })?;
        let mut packed = (
            Vec::with_capacity(2),
            Vec::with_capacity(self.config.layers),
        );
        for piece in pieces {
            let piece = piece
                .into_inner()
                .expect("nothing panics while it holds a piece");
            match piece.expect("every piece is packed when no worker failed") {
                Piece::Table(table) => packed.0.push(table),
                Piece::Layer(layer) => packed.1.push(*layer),
            }
        }
        let mut tables = packed.0.into_iter();
        Ok(PackedWeights {
            head: tables.next().expect("the first piece is the head"),
            embedding: tables.next(),
            output_norm: self.reader.vector(TensorId::OutputNorm)?,
            layers: packed.1,
        })
    }

    fn layer(&self, layer: usize) -> Result<PackedLayer, LoadError> {
        let decoder = &self.config.decoder;
        let id = |part| TensorId::Layer(layer, part);
        let vector = |part| self.reader.vector(id(part));
        let matrix = |parts: &[Part]| {
            let ids: Vec<TensorId> = parts.iter().map(|part| id(*part)).collect();
            self.matrix(&ids)
        };
        let post_norm = |part| decoder.post_norms.then(|| vector(part)).transpose();
        let bias = || -> Result<Vec<f32>, LoadError> {
            let parts = [Part::QueryBias, Part::KeyBias, Part::ValueBias];
            Ok(parts
                .map(vector)
                .into_iter()
                .collect::<Result<Vec<_>, _>>()?
                .concat())
        };
        let norms = || Ok::<_, LoadError>([vector(Part::QueryNorm)?, vector(Part::KeyNorm)?]);
        Ok(PackedLayer {
            attention_norm: vector(Part::AttentionNorm)?,
            query_key_value: matrix(&[Part::Query, Part::Key, Part::Value])?,
            query_key_value_bias: decoder.query_key_value_bias.then(bias).transpose()?,
            query_key_norms: decoder.query_key_norm.then(norms).transpose()?,
            output: matrix(&[Part::Output])?,
            post_attention_norm: post_norm(Part::PostAttentionNorm)?,
            feed_forward_norm: vector(Part::FeedForwardNorm)?,
            gate_up: matrix(&[Part::Gate, Part::Up])?,
            down: matrix(&[Part::Down])?,
            post_feed_forward_norm: post_norm(Part::PostFeedForwardNorm)?,
        })
    }

    /// Packs matrices of the same width, one below the other.
    fn matrix(&self, tensors: &[TensorId]) -> Result<PackedMatrix, LoadError> {
        let stored = tensors.iter().map(|tensor| self.reader.matrix(*tensor));
        let stored = stored.collect::<Result<Vec<StoredMatrix<'_>>, LoadError>>()?;
        let packed = match self.dense {
            true => PackedMatrix::pack_dequantized(&stored, &self.arena),
            false => PackedMatrix::pack(&stored, &self.arena),
        };
        packed.map_err(|error| self.reader.error(tensors[0], error.to_string()))
    }
}
