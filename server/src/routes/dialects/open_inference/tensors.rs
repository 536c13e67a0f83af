//! Text tensors of the protocol: as JSON, or as bytes behind the JSON (the binary tensor data extension).

use actix_web::HttpRequest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::body::{RequestBody, parse_object, read};
use crate::error::ApiError;
use crate::inference::parameters::Stop;

/// The tensor that holds prompts.
pub const INPUT: &str = "text_input";
/// Other names for it.
const OTHER_INPUTS: [&str; 2] = ["prompt", "text"];
/// The tensor that holds answers.
pub const OUTPUT: &str = "text_output";
/// Says where the JSON ends and the bytes begin.
const JSON_LENGTH: &str = "inference-header-content-length";

/// Prompts to continue.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct InferRequest {
    /// What to continue.
    #[serde(flatten)]
    pub tensors: InferTensors,
    /// How to generate; what `parameters` says as well counts there.
    #[serde(flatten)]
    pub own: InferParameters,
}

/// The protocol's own fields.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct InferTensors {
    /// Comes back with the answer.
    pub id: Option<String>,
    /// One tensor of texts, `text_input`.
    pub inputs: Vec<InputTensor>,
    /// The tensors to answer with; `text_output` is the only one.
    pub outputs: Option<Vec<RequestedOutput>>,
    /// How to generate.
    pub parameters: Option<InferParameters>,
}

/// A tensor of texts.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct InputTensor {
    /// `text_input`; `prompt` and `text` mean the same.
    pub name: String,
    /// `BYTES`.
    pub datatype: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// The texts, unless they follow the JSON as bytes.
    pub data: Option<Value>,
    /// About the bytes.
    pub parameters: Option<TensorParameters>,
}

/// Where a tensor's values are.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct TensorParameters {
    /// How many bytes of those behind the JSON.
    pub binary_data_size: Option<usize>,
}

/// A tensor to answer with.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct RequestedOutput {
    /// `text_output`.
    pub name: String,
}

/// How to generate.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct InferParameters {
    /// Most tokens per text, 16 unless given.
    pub max_tokens: Option<i64>,
    /// Softmax temperature, 0 to 2, 1 unless given; 0 is greedy.
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    pub top_p: Option<f64>,
    /// Only the likeliest tokens, this many.
    pub top_k: Option<i64>,
    /// The same seed, request and version give the same text.
    pub seed: Option<i64>,
    /// Texts that end an answer.
    pub stop: Option<Stop>,
}

/// A tensor of answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct OutputTensor {
    /// `text_output`.
    pub name: &'static str,
    /// `BYTES`.
    pub datatype: &'static str,
    /// Those of the input.
    pub shape: Vec<usize>,
    /// The texts.
    pub data: Vec<String>,
}

/// The prompts of a request, and the dimensions they came in.
#[derive(Debug)]
pub struct Texts {
    /// Row by row.
    pub texts: Vec<String>,
    /// The dimensions.
    pub shape: Vec<usize>,
}

/// Splits a body into its JSON and the bytes behind it.
///
/// # Errors
/// `Malformed` for JSON that does not parse, `InvalidValue` for a length that is none.
pub fn split<'a>(
    request: &HttpRequest,
    body: &'a [u8],
) -> Result<(Map<String, Value>, &'a [u8]), ApiError> {
    let Some(length) = request.headers().get(JSON_LENGTH) else {
        return Ok((parse_object(body)?, &[]));
    };
    let length = length.to_str().ok().and_then(|text| text.parse().ok());
    let split = length.and_then(|length| body.split_at_checked(length));
    let (json, bytes) = split.ok_or_else(|| {
        ApiError::invalid(
            JSON_LENGTH,
            format!(
                "the header must say how many of the body's {} bytes are JSON",
                body.len()
            ),
        )
    })?;
    Ok((parse_object(json)?, bytes))
}

impl RequestBody for InferRequest {
    fn from_object(object: Map<String, Value>) -> Result<Self, ApiError> {
        let object = Value::Object(object);
        Ok(Self {
            tensors: read(&object)?,
            own: read(&object)?,
        })
    }
}

impl InferTensors {
    /// Reads the one tensor of prompts.
    ///
    /// # Errors
    /// `InvalidValue` naming what is wrong with the tensors.
    pub fn texts(&self, bytes: &[u8]) -> Result<Texts, ApiError> {
        let [input] = self.inputs.as_slice() else {
            return Err(ApiError::invalid(
                "inputs",
                format!(
                    "`inputs` has {} tensors; send one, `{INPUT}`",
                    self.inputs.len()
                ),
            ));
        };
        if let Some(other) = (self.outputs.iter().flatten()).find(|output| output.name != OUTPUT) {
            return Err(ApiError::invalid(
                "outputs",
                format!(
                    "there is no output `{}`; the only one is `{OUTPUT}`",
                    other.name
                ),
            ));
        }
        let texts = input.texts(bytes)?;
        let mut sides = input.shape.iter();
        let places = sides.try_fold(1_usize, |places, &side| places.checked_mul(side));
        if places != Some(texts.len()) || texts.is_empty() {
            return Err(ApiError::invalid(
                "inputs[0].shape",
                format!(
                    "a tensor of shape {:?} cannot hold {} texts; send at least one, and as many as the shape says",
                    input.shape,
                    texts.len()
                ),
            ));
        }
        Ok(Texts {
            texts,
            shape: input.shape.clone(),
        })
    }
}

impl InferRequest {
    /// How to generate: what `parameters` says, then what the request itself says.
    pub fn generation(&self) -> InferParameters {
        let nested = self.tensors.parameters.clone().unwrap_or_default();
        let own = self.own.clone();
        InferParameters {
            max_tokens: nested.max_tokens.or(own.max_tokens),
            temperature: nested.temperature.or(own.temperature),
            top_p: nested.top_p.or(own.top_p),
            top_k: nested.top_k.or(own.top_k),
            seed: nested.seed.or(own.seed),
            stop: nested.stop.or(own.stop),
        }
    }
}

impl InputTensor {
    fn texts(&self, bytes: &[u8]) -> Result<Vec<String>, ApiError> {
        if self.name != INPUT && !OTHER_INPUTS.contains(&self.name.as_str()) {
            return Err(ApiError::invalid(
                "inputs[0].name",
                format!(
                    "there is no input `{}`; the only one is `{INPUT}`",
                    self.name
                ),
            ));
        }
        if self.datatype != "BYTES" {
            return Err(ApiError::invalid(
                "inputs[0].datatype",
                format!("`{INPUT}` is of type BYTES, not {}", self.datatype),
            ));
        }
        let size = (self.parameters.as_ref()).and_then(|parameters| parameters.binary_data_size);
        match (&self.data, size) {
            (Some(data), None) => {
                let mut texts = Vec::new();
                flatten(data, &mut texts)?;
                Ok(texts)
            }
            (None, Some(size)) if size == bytes.len() => from_bytes(bytes),
            (None, Some(size)) => Err(ApiError::invalid(
                "inputs[0].parameters.binary_data_size",
                format!(
                    "`binary_data_size` is {size} and {} bytes follow the JSON",
                    bytes.len()
                ),
            )),
            (Some(_), Some(_)) | (None, None) => Err(ApiError::invalid(
                "inputs[0].data",
                "a tensor has either `data` or `parameters.binary_data_size`",
            )),
        }
    }
}

/// Texts in an array, or in arrays of arrays.
fn flatten(data: &Value, texts: &mut Vec<String>) -> Result<(), ApiError> {
    match data {
        Value::Array(items) => items.iter().try_for_each(|item| match item {
            Value::String(text) => {
                texts.push(text.clone());
                Ok(())
            }
            other => flatten(other, texts),
        }),
        _ => Err(ApiError::invalid(
            "inputs[0].data",
            "`data` must be an array of strings, or of arrays of them",
        )),
    }
}

/// Texts each behind their length, four bytes with the lowest first.
fn from_bytes(mut bytes: &[u8]) -> Result<Vec<String>, ApiError> {
    let wrong = |what: &str| ApiError::invalid("inputs[0]", format!("the tensor's bytes {what}"));
    let mut texts = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let length = u32::from_le_bytes(*length) as usize;
        let (text, rest) =
            (rest.split_at_checked(length)).ok_or_else(|| wrong("end in the middle of a text"))?;
        let text = std::str::from_utf8(text).map_err(|_| wrong("are not UTF-8"))?;
        texts.push(text.to_owned());
        bytes = rest;
    }
    match bytes {
        [] => Ok(texts),
        _ => Err(wrong("end in the middle of a length")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(body: Value, bytes: &[u8]) -> Result<Vec<String>, ApiError> {
        let request: InferTensors = read(&body)?;
        Ok(request.texts(bytes)?.texts)
    }

    fn tensor(rest: Value) -> Value {
        let mut tensor = json!({"name": "text_input", "datatype": "BYTES", "shape": [2]});
        for (field, value) in rest.as_object().expect("fields") {
            tensor[field] = value.clone();
        }
        json!({"inputs": [tensor]})
    }

    #[test]
    fn texts_come_as_json_in_any_nesting_or_as_bytes() {
        let expected = ["Hi", "é"];
        let flat = tensor(json!({"data": ["Hi", "é"]}));
        let nested = tensor(json!({"shape": [2, 1], "data": [["Hi"], ["é"]]}));
        let binary = tensor(json!({"parameters": {"binary_data_size": 12}}));
        let bytes = b"\x02\x00\x00\x00Hi\x02\x00\x00\x00\xc3\xa9";
        assert_eq!(texts(flat, &[]).expect("flat"), expected);
        assert_eq!(texts(nested, &[]).expect("nested"), expected);
        assert_eq!(texts(binary, bytes).expect("binary"), expected);
    }

    #[test]
    fn tensors_that_are_not_what_they_say_are_refused() {
        let size = json!({"parameters": {"binary_data_size": 6}});
        for (body, bytes) in [
            (tensor(json!({"data": ["one"]})), &b""[..]),
            (tensor(json!({"data": ["one", 2]})), b""),
            (tensor(json!({"data": "one"})), b""),
            (
                tensor(json!({"shape": [usize::MAX, 2], "data": ["a", "b"]})),
                b"",
            ),
            (
                tensor(json!({"datatype": "INT32", "data": ["a", "b"]})),
                b"",
            ),
            (tensor(json!({"name": "image", "data": ["a", "b"]})), b""),
            (tensor(json!({})), b""),
            (tensor(size.clone()), b"\x02\x00\x00\x00H"),
            (tensor(size.clone()), b"\x09\x00\x00\x00Hi"),
            (tensor(size), b"\x02\x00\x00\x00\xff\xff"),
            (json!({"inputs": []}), b""),
        ] {
            assert!(texts(body.clone(), bytes).is_err(), "{body}");
        }
    }

    #[test]
    fn parameters_count_before_fields_of_the_request() {
        let mut body = tensor(json!({"data": ["a", "b"]}));
        body["max_tokens"] = json!(5);
        body["seed"] = json!(6);
        body["parameters"] = json!({"max_tokens": 7});
        let object = body.as_object().expect("an object").clone();
        let request = InferRequest::from_object(object).expect("a request");
        let generation = request.generation();
        assert_eq!((generation.max_tokens, generation.seed), (Some(7), Some(6)));
    }
}
