use super::*;
use crate::testing::TinyModel;

#[test]
fn rows_of_a_head_go_from_pairs_to_halves() {
    assert_eq!(
        unpermuted_rows(2, 6),
        [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]
    );
}

#[test]
fn a_name_is_the_file_without_its_quantisation() {
    let names = [
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "models/tiny.gguf",
        "phi-3.5-mini.gguf",
    ];
    let names = names.map(|path| name_of(Path::new(path)));
    assert_eq!(names, ["SmolLM2-135M-Instruct", "tiny", "phi-3.5-mini"]);
}

#[test]
fn a_file_that_is_no_gguf_is_refused_by_its_first_bytes() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("model.gguf");
    fs_err::write(&path, b"PK\x03\x04 not a model").expect("a writable directory");
    let error = GgufFile::open(&path).err().expect("a refusal");
    assert!(
        error
            .to_string()
            .contains("does not start with the bytes `GGUF`")
    );
}

/// A GGUF file of version 3 with one number under one key and tensors of these shapes, and nothing behind them.
fn header(key: &str, number: u32, shapes: &[&[u64]]) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    };
    bytes.extend((shapes.len() as u64).to_le_bytes());
    bytes.extend(1_u64.to_le_bytes());
    text(&mut bytes, key);
    bytes.extend(4_u32.to_le_bytes());
    bytes.extend(number.to_le_bytes());
    for (index, shape) in shapes.iter().enumerate() {
        text(&mut bytes, &index.to_string());
        bytes.extend((shape.len() as u32).to_le_bytes());
        shape
            .iter()
            .for_each(|side| bytes.extend(side.to_le_bytes()));
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend(0_u64.to_le_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    bytes
}

fn refusal(bytes: &[u8]) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("model.gguf");
    fs_err::write(&path, bytes).expect("a writable directory");
    let error = GgufFile::open(&path).err().expect("a refusal").to_string();
    error.replace(&directory.path().display().to_string(), "DIR")
}

#[test]
fn an_alignment_of_zero_is_refused_and_not_divided_by() {
    insta::assert_snapshot!(refusal(&header("general.alignment", 0, &[])), @"DIR/model.gguf: not a usable model file: `general.alignment` is 0, expected a power of two such as 32");
    let other = header("general.alignments", 0, &[]);
    assert!(content(&other).is_ok());
    assert!(content(&header("general.alignment", 64, &[])).is_ok());
}

#[test]
fn the_alignment_is_found_behind_values_of_every_type() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let bytes = fs_err::read(TinyModel::write(directory.path(), 1)).expect("the model was written");
    // The last key of the tiny model's metadata, a number too, becomes an alignment of zero.
    let key = b"general.quantization_version";
    let found = bytes.windows(key.len()).position(|window| window == key);
    let at = found.expect("the key is there");
    let renamed = [
        &17_u64.to_le_bytes()[..],
        b"general.alignment",
        &4_u32.to_le_bytes(),
        &[0; 4],
    ];
    let end = at + key.len() + 8;
    let bytes = [&bytes[..at - 8], &renamed.concat(), &bytes[end..]].concat();
    assert!(refusal(&bytes).contains("`general.alignment` is 0"));
}

#[test]
fn a_tensor_of_more_bytes_than_can_be_counted_is_refused() {
    for shape in [&[u64::MAX, 2][..], &[1 << 62, 4], &[1 << 62, 1]] {
        let error = refusal(&header("general.file_type", 1, &[shape]));
        assert!(error.contains("more bytes than can be counted"), "{error}");
    }
}
