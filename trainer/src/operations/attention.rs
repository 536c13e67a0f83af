//! Causal grouped-query attention over a ragged batch, forward and backward.
//!
//! Rows hold queries, keys and values side by side, queries and keys already rotated. Probabilities are never kept:
//! backward computes them again, block by block. Tasks run per segment and key head; gradients of a shared prefix are
//! collected per task and added in segment order, so the result does not depend on how threads were scheduled.

use engine::kernels::float_product::{Matrix, MatrixMut, Product, multiply};
use rayon::prelude::*;

use super::exponential::exponential;
use super::rms_norm::sum_by_lanes;
use crate::segments::{Segment, Segments};

/// Query rows whose scores exist at once, per head: bounds memory and skips most of the masked half.
const BLOCK: usize = 64;

/// Shapes of the heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attention {
    /// Query heads.
    pub(crate) heads: usize,
    /// Key and value heads; divides `heads`.
    pub(crate) kv_heads: usize,
    /// Values per head.
    pub(crate) head_width: usize,
}

/// What one task of backward found: queries `[rows, group · head]`, keys and values `[prefix + rows, head]`.
struct TaskGradient {
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
}

/// One segment seen by one key head and the query heads that share it.
struct Task<'a> {
    shape: &'a Attention,
    segment: &'a Segment,
    kv_head: usize,
    /// The whole batch, `[rows, row_width]`.
    rows: &'a [f32],
}

/// A block of query rows of a task, and the keys they may see.
struct Block {
    first: usize,
    length: usize,
    keys: usize,
}

impl Attention {
    /// Values per row: queries, keys, values.
    pub(crate) fn row_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_width
    }

    /// Values per row of the output.
    pub(crate) fn output_width(&self) -> usize {
        self.heads * self.head_width
    }

    fn group_width(&self) -> usize {
        self.heads / self.kv_heads * self.head_width
    }

    /// `[rows, row_width]` to `[rows, output_width]`.
    pub(crate) fn forward(&self, rows: &[f32], segments: &Segments) -> Vec<f32> {
        let tasks = self.tasks(rows, segments);
        let results: Vec<Vec<f32>> = tasks.par_iter().map(Task::forward).collect();
        let mut output = vec![0.0; segments.rows() * self.output_width()];
        for (task, result) in tasks.iter().zip(&results) {
            let column = task.kv_head * self.group_width();
            for (row, values) in task
                .segment
                .rows
                .clone()
                .zip(result.chunks_exact(self.group_width()))
            {
                output[row * self.output_width() + column..][..values.len()]
                    .copy_from_slice(values);
            }
        }
        output
    }

    /// The gradient of `rows` given that of the output.
    pub(crate) fn backward(&self, rows: &[f32], segments: &Segments, gradient: &[f32]) -> Vec<f32> {
        let tasks = self.tasks(rows, segments);
        let results: Vec<TaskGradient> = tasks
            .par_iter()
            .map(|task| task.backward(gradient))
            .collect();
        let width = self.row_width();
        let mut total = vec![0.0; rows.len()];
        for (task, result) in tasks.iter().zip(&results) {
            let column = task.kv_head * self.group_width();
            for (row, values) in task
                .segment
                .rows
                .clone()
                .zip(result.query.chunks_exact(self.group_width()))
            {
                total[row * width + column..][..values.len()].copy_from_slice(values);
            }
            let keys = task.segment.key_ranges(task.segment.rows.len()).flatten();
            let values = result.value.chunks_exact(self.head_width);
            for ((row, key), value) in keys
                .zip(result.key.chunks_exact(self.head_width))
                .zip(values)
            {
                add(&mut total[row * width + task.key_column()..], key);
                add(&mut total[row * width + task.value_column()..], value);
            }
        }
        total
    }

    fn tasks<'a>(&'a self, rows: &'a [f32], segments: &'a Segments) -> Vec<Task<'a>> {
        let task = |segment| {
            move |kv_head| Task {
                shape: self,
                segment,
                kv_head,
                rows,
            }
        };
        segments
            .iter()
            .flat_map(|segment| (0..self.kv_heads).map(task(segment)))
            .collect()
    }
}

impl Task<'_> {
    fn key_column(&self) -> usize {
        (self.shape.heads + self.kv_head) * self.shape.head_width
    }

    fn value_column(&self) -> usize {
        (self.shape.heads + self.shape.kv_heads + self.kv_head) * self.shape.head_width
    }

    fn group(&self) -> usize {
        self.shape.heads / self.shape.kv_heads
    }

    fn score_scale(&self) -> f32 {
        1.0 / (self.shape.head_width as f32).sqrt()
    }

    fn blocks(&self) -> impl Iterator<Item = Block> {
        let (rows, prefix) = (self.segment.rows.len(), self.segment.prefix_length());
        (0..rows).step_by(BLOCK).map(move |first| {
            let length = BLOCK.min(rows - first);
            Block {
                first,
                length,
                keys: prefix + first + length,
            }
        })
    }

    /// The key or value columns of each range of rows that a block sees, with the first key's index.
    fn visible(&self, block: &Block, column: usize) -> impl Iterator<Item = (usize, Matrix<'_>)> {
        let (width, head) = (self.shape.row_width(), self.shape.head_width);
        let mut first_key = 0;
        self.segment
            .key_ranges(block.first + block.length)
            .filter(|range| !range.is_empty())
            .map(move |range| {
                let key = first_key;
                first_key += range.len();
                (
                    key,
                    Matrix::strided(
                        &self.rows[range.start * width + column..],
                        range.len(),
                        head,
                        width,
                    ),
                )
            })
    }

    /// Head-major copy `[group · length, head]` of this task's columns of a block of `source`'s rows.
    fn gather(&self, block: &Block, source: &[f32], source_width: usize) -> Vec<f32> {
        let head = self.shape.head_width;
        let mut gathered = Vec::with_capacity(self.group() * block.length * head);
        for member in 0..self.group() {
            let column = (self.kv_head * self.group() + member) * head;
            for row in 0..block.length {
                let row = self.segment.rows.start + block.first + row;
                gathered.extend_from_slice(&source[row * source_width + column..][..head]);
            }
        }
        gathered
    }

    /// The inverse of [`Task::gather`], into `[rows, group · head]` of this task alone.
    fn scatter(&self, block: &Block, gathered: &[f32], destination: &mut [f32]) {
        let head = self.shape.head_width;
        for (index, values) in gathered.chunks_exact(head).enumerate() {
            let (member, row) = (index / block.length, block.first + index % block.length);
            destination[row * self.shape.group_width() + member * head..][..head]
                .copy_from_slice(values);
        }
    }

    /// Attention probabilities of a block, `[group · length, keys]`, zero where masked.
    fn probabilities(&self, block: &Block, queries: &[f32]) -> Vec<f32> {
        let count = self.group() * block.length;
        let mut scores = vec![0.0; count * block.keys];
        let queries = Matrix::new(queries, count, self.shape.head_width);
        for (key, keys) in self.visible(block, self.key_column()) {
            let columns = keys.transposed();
            let destination =
                MatrixMut::strided(&mut scores[key..], count, columns.columns(), block.keys);
            multiply(
                destination,
                queries,
                columns,
                Product::WRITE.scaled(self.score_scale()).on_one_thread(),
            );
        }
        for (index, row) in scores.chunks_exact_mut(block.keys).enumerate() {
            let visible = block.keys - block.length + index % block.length + 1;
            softmax(&mut row[..visible]);
            row[visible..].fill(0.0);
        }
        scores
    }

    fn forward(&self) -> Vec<f32> {
        let mut output = vec![0.0; self.segment.rows.len() * self.shape.group_width()];
        for block in self.blocks() {
            let queries = self.gather(&block, self.rows, self.shape.row_width());
            let probabilities = self.probabilities(&block, &queries);
            let mut mixed = vec![0.0; queries.len()];
            self.mix(&block, &probabilities, self.value_column(), &mut mixed);
            self.scatter(&block, &mixed, &mut output);
        }
        output
    }

    /// `mixed = weights · rows[column…]` over all keys a block sees.
    fn mix(&self, block: &Block, weights: &[f32], column: usize, mixed: &mut [f32]) {
        let (count, head) = (self.group() * block.length, self.shape.head_width);
        for (key, values) in self.visible(block, column) {
            let weights = Matrix::strided(&weights[key..], count, values.rows(), block.keys);
            let product = Product {
                accumulate: key > 0,
                ..Product::WRITE
            };
            multiply(
                MatrixMut::new(mixed, count, head),
                weights,
                values,
                product.on_one_thread(),
            );
        }
    }

    fn backward(&self, gradient: &[f32]) -> TaskGradient {
        let (rows, head) = (self.segment.rows.len(), self.shape.head_width);
        let keys = self.segment.prefix_length() + rows;
        let mut result = TaskGradient {
            query: vec![0.0; rows * self.shape.group_width()],
            key: vec![0.0; keys * head],
            value: vec![0.0; keys * head],
        };
        for block in self.blocks() {
            let count = self.group() * block.length;
            let queries = self.gather(&block, self.rows, self.shape.row_width());
            let upstream = self.gather(&block, gradient, self.shape.output_width());
            let probabilities = self.probabilities(&block, &queries);
            add_transposed(
                &probabilities,
                &upstream,
                (count, block.keys, head),
                1.0,
                &mut result.value,
            );
            let mut scores = vec![0.0; count * block.keys];
            for (key, values) in self.visible(&block, self.value_column()) {
                let columns = values.transposed();
                let destination =
                    MatrixMut::strided(&mut scores[key..], count, columns.columns(), block.keys);
                let upstream = Matrix::new(&upstream, count, head);
                multiply(
                    destination,
                    upstream,
                    columns,
                    Product::WRITE.on_one_thread(),
                );
            }
            softmax_gradient(&probabilities, &mut scores, block.keys);
            let mut query_gradient = vec![0.0; queries.len()];
            self.mix(&block, &scores, self.key_column(), &mut query_gradient);
            query_gradient
                .iter_mut()
                .for_each(|value| *value *= self.score_scale());
            self.scatter(&block, &query_gradient, &mut result.query);
            add_transposed(
                &scores,
                &queries,
                (count, block.keys, head),
                self.score_scale(),
                &mut result.key,
            );
        }
        result
    }
}

/// `destination[..keys] += scale · weightsᵀ · values` with weights `[count, keys]` and values `[count, head]`.
fn add_transposed(
    weights: &[f32],
    values: &[f32],
    (count, keys, head): (usize, usize, usize),
    scale: f32,
    destination: &mut [f32],
) {
    multiply(
        MatrixMut::new(destination, keys, head),
        Matrix::new(weights, count, keys).transposed(),
        Matrix::new(values, count, head),
        Product::ADD.scaled(scale).on_one_thread(),
    );
}

fn softmax(row: &mut [f32]) {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for value in row.iter_mut() {
        *value = exponential(*value - largest);
    }
    let inverse = 1.0 / sum_by_lanes(row.len(), |j| row[j]);
    for value in row.iter_mut() {
        *value *= inverse;
    }
}

/// In place, row by row: `dS = P ∘ (dP − Σ P ∘ dP)`.
fn softmax_gradient(probabilities: &[f32], gradient: &mut [f32], width: usize) {
    for (p, d) in probabilities
        .chunks_exact(width)
        .zip(gradient.chunks_exact_mut(width))
    {
        let mean = sum_by_lanes(width, |j| p[j] * d[j]);
        for (p, d) in p.iter().zip(d) {
            *d = p * (*d - mean);
        }
    }
}

fn add(destination: &mut [f32], values: &[f32]) {
    for (destination, value) in destination.iter_mut().zip(values) {
        *destination += value;
    }
}
