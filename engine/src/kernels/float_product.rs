//! Single-precision matrix products on strided views, through the `gemm` crate. Training is made of them; serving has products of
//! its own.
//!
//! The views check their bounds when they are made, so a product cannot read or write outside its slices.

/// A read-only view of `rows × columns` values.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A dense row-major matrix.
    ///
    /// # Panics
    /// When `data` is too short.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// A row-major matrix whose rows begin `row_stride` values apart.
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        check_span(data.len(), rows, columns, row_stride);
        Self {
            data,
            rows,
            columns,
            row_stride,
            column_stride: 1,
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The same values with rows and columns exchanged.
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// A writable row-major view of `rows × columns` values.
pub struct MatrixMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

impl<'a> MatrixMut<'a> {
    /// A dense row-major matrix.
    pub fn new(data: &'a mut [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// A row-major matrix whose rows begin `row_stride` values apart.
    pub fn strided(data: &'a mut [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        check_span(data.len(), rows, columns, row_stride);
        Self {
            data,
            rows,
            columns,
            row_stride,
        }
    }
}

/// How a product meets what its destination held.
#[derive(Clone, Copy)]
pub struct Product {
    /// Factor of the product.
    pub scale: f32,
    /// Add to the destination instead of overwriting it.
    pub accumulate: bool,
    /// Spread over the threads of the current rayon pool.
    pub parallel: bool,
}

impl Product {
    /// Overwrites the destination, on all threads.
    pub const WRITE: Self = Self {
        scale: 1.0,
        accumulate: false,
        parallel: true,
    };
    /// Adds to the destination, on all threads.
    pub const ADD: Self = Self {
        scale: 1.0,
        accumulate: true,
        parallel: true,
    };

    /// The same with another factor.
    pub const fn scaled(self, scale: f32) -> Self {
        Self { scale, ..self }
    }

    /// The same on the calling thread alone.
    pub const fn on_one_thread(self) -> Self {
        Self {
            parallel: false,
            ..self
        }
    }
}

/// `destination = [destination +] scale · left · right`.
///
/// # Panics
/// When the shapes do not chain: callers derive all three from one configuration.
pub fn multiply(destination: MatrixMut<'_>, left: Matrix<'_>, right: Matrix<'_>, product: Product) {
    assert_eq!(left.columns, right.rows, "inner dimensions of a product");
    assert_eq!(
        (destination.rows, destination.columns),
        (left.rows, right.columns),
        "shape of a product"
    );
    if destination.rows == 0 || destination.columns == 0 || left.columns == 0 {
        if !product.accumulate {
            let MatrixMut {
                data,
                rows,
                columns,
                row_stride,
            } = destination;
            (0..rows).for_each(|row| data[row * row_stride..][..columns].fill(0.0));
        }
        return;
    }
    let parallelism = match (product.parallel, rayon::current_num_threads()) {
        (false, _) | (true, 1) => gemm::Parallelism::None,
        (true, threads) => gemm::Parallelism::Rayon(threads),
    };
    // SAFETY: each view was checked to lie inside its slice when it was made, the three shapes chain (asserted above),
    // and the destination is borrowed mutably, so it overlaps neither operand.
    unsafe {
        gemm::gemm(
            destination.rows,
            destination.columns,
            left.columns,
            destination.data.as_mut_ptr(),
            1,
            destination.row_stride as isize,
            product.accumulate,
            left.data.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.data.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            1.0,
            product.scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

fn check_span(length: usize, rows: usize, columns: usize, row_stride: usize) {
    assert!(
        row_stride >= columns,
        "rows of a view overlap: {columns} columns every {row_stride} values"
    );
    if rows > 0 {
        let span = (rows - 1) * row_stride + columns;
        assert!(
            span <= length,
            "a view of {rows} × {columns} needs {span} values and got {length}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiplies_and_adds_into_a_column_block() {
        let left = [1.0, 2.0, 3.0, 4.0];
        let right = [5.0, 6.0, 7.0, 8.0];
        let mut destination = [1.0; 6];
        multiply(
            MatrixMut::strided(&mut destination[1..], 2, 2, 3),
            Matrix::new(&left, 2, 2),
            Matrix::new(&right, 2, 2).transposed(),
            Product::ADD.scaled(2.0).on_one_thread(),
        );
        assert_eq!(destination, [1.0, 35.0, 47.0, 1.0, 79.0, 107.0]);
    }

    #[test]
    fn an_empty_inner_dimension_writes_zeros() {
        let mut destination = [3.0; 4];
        multiply(
            MatrixMut::new(&mut destination, 2, 2),
            Matrix::new(&[], 2, 0),
            Matrix::new(&[], 0, 2),
            Product::WRITE,
        );
        assert_eq!(destination, [0.0; 4]);
    }

    #[test]
    #[should_panic(expected = "needs 6 values")]
    fn a_view_past_the_end_is_refused() {
        Matrix::new(&[0.5; 5], 2, 3);
    }
}
