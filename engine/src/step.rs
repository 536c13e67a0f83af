//! One forward step over a mixed batch by our kernels: prefill chunks and decodes of many sequences, each with its own
//! adapter. The same step through candle's operations is in `device`.

use crate::adapter::PreparedLayer;
use crate::batch::{Layout, Output, RowGroups, Segment, WantedRow, adapter_spans, row_groups};
use crate::config::{Activation, Rotary};
use crate::kernels::{
    AttentionRows, AttentionShape, BatchRows, HeadTransform, KernelChoice, KvView, LowRank,
    PackedMatrix, Pool, ProjectionOutput, QuantizedRows, QueryGroups, RotaryTable, RowGroup,
    add_normed, attend_rows, geglu_row, project, rms_norm_row, rotate_and_store, swiglu_row,
};
use crate::kv::KvCache;
use crate::model::KernelModel;
use crate::packing::PackedLayer;

/// Rows whose logits are computed at a time; bounds the memory that logits take.
const LOGIT_ROWS: usize = 32;

/// The model with its cache, threads and buffers, computed by our kernels.
pub(crate) struct KernelExecutor {
    model: KernelModel,
    /// As many as the decoder has rotary embeddings.
    rotaries: Vec<RotaryTable>,
    cache: KvCache,
    pool: Pool,
    buffers: Buffers,
    layout: Layout,
}

/// Activations of a step, kept between steps so that nothing is allocated again.
struct Buffers {
    residual: Vec<f32>,
    normed: Vec<f32>,
    projected: Vec<f32>,
    attended: Vec<f32>,
    query_groups: QueryGroups,
    /// What is normed before it is added to the residual stream.
    added: Vec<f32>,
    gate_up: Vec<f32>,
    activated: Vec<f32>,
    reduced: Vec<f32>,
    logits: Vec<f32>,
    quantized: QuantizedRows,
}

impl KernelExecutor {
    /// An executor for sequences of up to `positions` tokens whose keys and values fill `blocks` blocks.
    pub(crate) fn new(model: KernelModel, blocks: usize, positions: usize) -> Self {
        let cache = KvCache::new(model.config.layers, blocks, &model.attention_shape());
        let pool = Pool::new(model.threads);
        let rotaries = model.config.decoder.rotaries.iter();
        let table = |rotary: &Rotary| {
            RotaryTable::new(positions, &rotary.frequencies(positions), rotary.magnitude)
        };
        let rotaries = rotaries.map(table).collect();
        Self {
            buffers: Buffers::new(QuantizedRows::new(model.resolution)),
            model,
            rotaries,
            cache,
            pool,
            layout: Layout::default(),
        }
    }

    /// Copies a block's keys and values.
    pub(crate) fn copy_block(&mut self, from: u32, to: u32) {
        self.cache.copy_block(from, to);
    }

    /// Computes the segments and hands what is wanted of them to `sink(segment, row of the segment, output)`.
    ///
    /// Segments with the same adapter should stand next to each other; rows of a segment see the earlier ones.
    pub(crate) fn run(
        &mut self,
        segments: &[Segment<'_>],
        mut sink: impl FnMut(usize, usize, Output<'_>),
    ) {
        let mut layout = std::mem::take(&mut self.layout);
        layout.fill(segments);
        let spans = adapter_spans(segments);
        self.embed(segments, layout.places.len());
        let shape = self.model.attention_shape();
        for layer in 0..self.model.config.layers {
            let groups =
                |pick: fn(&PreparedLayer) -> &Option<LowRank>| row_groups(&spans, layer, pick);
            self.attention(layer, (segments, &layout), &shape, &groups);
            self.feed_forward(layer, &groups);
        }
        for wanted in &layout.hidden {
            let hidden = self.hidden(wanted.batch_row);
            sink(wanted.segment, wanted.row, Output::Hidden(hidden));
        }
        for rows in layout.wanted.chunks(LOGIT_ROWS) {
            self.logits(rows);
            let vocabulary = self.model.config.vocabulary;
            let logits = self.buffers.logits.chunks_exact_mut(vocabulary);
            for (wanted, logits) in rows.iter().zip(logits) {
                sink(wanted.segment, wanted.row, Output::Logits(logits));
            }
        }
        self.layout = layout;
    }

    fn embed(&mut self, segments: &[Segment<'_>], rows: usize) {
        let hidden = self.model.config.hidden;
        let weights = &self.model.weights;
        let table = weights.embedding.as_ref().unwrap_or(&weights.head);
        let scale = self.model.config.decoder.embedding_scale;
        self.buffers.residual.resize(rows * hidden, 0.0);
        let tokens = segments.iter().flat_map(|segment| segment.tokens);
        for (token, out) in tokens.zip(self.buffers.residual.chunks_exact_mut(hidden)) {
            table.read_row(*token as usize, out);
            if scale != 1.0 {
                out.iter_mut().for_each(|x| *x *= scale);
            }
        }
    }

    fn attention<'g>(
        &mut self,
        layer: usize,
        (segments, layout): (&[Segment<'_>], &Layout),
        shape: &AttentionShape,
        groups: &impl Fn(fn(&PreparedLayer) -> &Option<LowRank>) -> RowGroups<'g>,
    ) {
        let Self {
            model,
            rotaries,
            cache,
            pool,
            buffers,
            ..
        } = self;
        let weights = &model.weights.layers[layer];
        let kernels = model.kernels;
        let sees = model.config.decoder.layers[layer];
        buffers.norm(pool, model, &weights.attention_norm);
        buffers.project_query_key_value(pool, kernels, weights, &groups(|l| &l.query_key_value));
        let norms = weights.query_key_norms.as_ref();
        let transform = HeadTransform {
            bias: weights.query_key_value_bias.as_deref(),
            norms: norms.map(|[query, key]| [query.as_slice(), key.as_slice()]),
            epsilon: model.config.rms_epsilon,
            rotary: &rotaries[sees.rotary],
        };
        let stored = (buffers.projected.as_mut_slice(), cache.layer_mut(layer));
        rotate_and_store(pool, shape, transform, &layout.places, stored);

        let view = |row: usize| {
            let tokens = layout.places[row].position + 1;
            KvView {
                cache: cache.layer(layer),
                table: segments[layout.segments[row]].table,
                first: (sees.window).map_or(0, |window| tokens.saturating_sub(window)),
                tokens,
            }
        };
        buffers.attend(pool, kernels, shape, (layout.places.len(), view));
        let input = BatchRows::new(&buffers.attended, &buffers.quantized);
        let sum = Sum {
            norm: weights.post_attention_norm.as_deref(),
            epsilon: model.config.rms_epsilon,
            residual: &mut buffers.residual,
            added: &mut buffers.added,
            reduced: &mut buffers.reduced,
        };
        let groups = groups(|l| &l.output);
        sum.project(pool, kernels, &weights.output, (input, &groups));
    }

    fn feed_forward<'g>(
        &mut self,
        layer: usize,
        groups: &impl Fn(fn(&PreparedLayer) -> &Option<LowRank>) -> RowGroups<'g>,
    ) {
        let Self {
            model,
            pool,
            buffers,
            ..
        } = self;
        let weights = &model.weights.layers[layer];
        let activation = model.config.decoder.activation;
        let (kernels, intermediate) = (model.kernels, model.config.intermediate);
        buffers.norm(pool, model, &weights.feed_forward_norm);
        let rows = buffers.normed.len() / model.config.hidden;
        buffers.gate_up.resize(rows * 2 * intermediate, 0.0);
        let input = BatchRows::new(&buffers.normed, &buffers.quantized);
        let output = ProjectionOutput::replacing(&mut buffers.gate_up, &mut buffers.reduced);
        project(
            pool,
            kernels,
            &weights.gate_up,
            input,
            (&groups(|l| &l.gate_up), output),
        );

        buffers.activated.resize(rows * intermediate, 0.0);
        let gate_up = &buffers.gate_up;
        let out = (buffers.activated.as_mut_slice(), intermediate);
        buffers.quantized.produce(pool, kernels, out, |row, out| {
            let both = &gate_up[row * 2 * intermediate..(row + 1) * 2 * intermediate];
            let (gate, up) = both.split_at(intermediate);
            match activation {
                Activation::SwiGlu => swiglu_row(kernels, gate, up, out),
                Activation::GeGlu => geglu_row(kernels, gate, up, out),
            }
        });
        let input = BatchRows::new(&buffers.activated, &buffers.quantized);
        let sum = Sum {
            norm: weights.post_feed_forward_norm.as_deref(),
            epsilon: model.config.rms_epsilon,
            residual: &mut buffers.residual,
            added: &mut buffers.added,
            reduced: &mut buffers.reduced,
        };
        let groups = groups(|l| &l.down);
        sum.project(pool, kernels, &weights.down, (input, &groups));
    }

    /// The hidden state of one row after the output norm, `[hidden]`.
    fn hidden(&mut self, batch_row: usize) -> &[f32] {
        let Self { model, buffers, .. } = self;
        let (hidden, epsilon) = (model.config.hidden, model.config.rms_epsilon);
        buffers.normed.resize(hidden, 0.0);
        let x = &buffers.residual[batch_row * hidden..(batch_row + 1) * hidden];
        rms_norm_row(x, &model.weights.output_norm, epsilon, &mut buffers.normed);
        &buffers.normed
    }

    /// Logits of the given rows.
    fn logits(&mut self, rows: &[WantedRow]) {
        let Self {
            model,
            pool,
            buffers,
            ..
        } = self;
        let (hidden, epsilon) = (model.config.hidden, model.config.rms_epsilon);
        buffers.normed.resize(rows.len() * hidden, 0.0);
        let residual = &buffers.residual;
        let out = (buffers.normed.as_mut_slice(), hidden);
        buffers
            .quantized
            .produce(pool, model.kernels, out, |row, out| {
                let batch_row = rows[row].batch_row;
                let x = &residual[batch_row * hidden..(batch_row + 1) * hidden];
                rms_norm_row(x, &model.weights.output_norm, epsilon, out);
            });
        buffers
            .logits
            .resize(rows.len() * model.config.vocabulary, 0.0);
        let input = BatchRows::new(&buffers.normed, &buffers.quantized);
        let output = ProjectionOutput::replacing(&mut buffers.logits, &mut buffers.reduced);
        let head = &model.weights.head;
        project(pool, model.kernels, head, input, (&[], output));
    }
}

/// A projection whose result is added to the residual stream.
struct Sum<'a> {
    /// Norm of what is added, if it has one.
    norm: Option<&'a [f32]>,
    epsilon: f32,
    residual: &'a mut Vec<f32>,
    added: &'a mut Vec<f32>,
    reduced: &'a mut Vec<f32>,
}

impl Sum<'_> {
    fn project(
        self,
        pool: &mut Pool,
        kernels: KernelChoice,
        matrix: &PackedMatrix,
        (input, groups): (BatchRows<'_>, &[RowGroup<'_>]),
    ) {
        let Some(weight) = self.norm else {
            let output = ProjectionOutput::adding(self.residual, self.reduced);
            return project(pool, kernels, matrix, input, (groups, output));
        };
        self.added.resize(self.residual.len(), 0.0);
        let output = ProjectionOutput::replacing(self.added, self.reduced);
        project(pool, kernels, matrix, input, (groups, output));
        add_normed(pool, (weight, self.epsilon), self.added, self.residual);
    }
}

impl Buffers {
    fn new(quantized: QuantizedRows) -> Self {
        Self {
            residual: Vec::new(),
            normed: Vec::new(),
            projected: Vec::new(),
            attended: Vec::new(),
            query_groups: QueryGroups::default(),
            added: Vec::new(),
            gate_up: Vec::new(),
            activated: Vec::new(),
            reduced: Vec::new(),
            logits: Vec::new(),
            quantized,
        }
    }

    fn norm(&mut self, pool: &mut Pool, model: &KernelModel, weight: &[f32]) {
        let (hidden, epsilon) = (model.config.hidden, model.config.rms_epsilon);
        self.normed.resize(self.residual.len(), 0.0);
        let residual = &self.residual;
        let out = (self.normed.as_mut_slice(), hidden);
        self.quantized
            .produce(pool, model.kernels, out, |row, out| {
                let x = &residual[row * hidden..(row + 1) * hidden];
                rms_norm_row(x, weight, epsilon, out);
            });
    }

    /// Attention of every row's queries over what its view shows.
    fn attend<'v>(
        &mut self,
        pool: &mut Pool,
        kernels: KernelChoice,
        shape: &AttentionShape,
        (rows, view): (usize, impl Fn(usize) -> KvView<'v> + Sync),
    ) {
        let query_width = shape.heads * shape.head_dim;
        self.attended.resize(rows * query_width, 0.0);
        let rows = AttentionRows {
            queries: &self.projected,
            stride: query_width + 2 * shape.kv_heads * shape.head_dim,
            view,
        };
        let groups = &mut self.query_groups;
        attend_rows(pool, kernels, shape, (&rows, groups), &mut self.attended);
        let out = (self.attended.as_mut_slice(), query_width);
        self.quantized.produce(pool, kernels, out, |_, _| {});
    }

    fn project_query_key_value(
        &mut self,
        pool: &mut Pool,
        kernels: KernelChoice,
        weights: &PackedLayer,
        groups: &[RowGroup<'_>],
    ) {
        let matrix: &PackedMatrix = &weights.query_key_value;
        let rows = self.normed.len() / matrix.inputs();
        self.projected.resize(rows * matrix.outputs(), 0.0);
        let input = BatchRows::new(&self.normed, &self.quantized);
        let output = ProjectionOutput::replacing(&mut self.projected, &mut self.reduced);
        project(pool, kernels, matrix, input, (groups, output));
    }
}
