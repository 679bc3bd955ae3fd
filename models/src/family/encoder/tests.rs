//! What an encoder answers, and what it costs to know it. Answers of `transformers` are in
//! `parity`, a real model is in `minilm`, and folders that lie are in `hostile`.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use paceline_protocol::{Dtype, Shape, Tensor};
use proptest::prelude::*;

use crate::{
    Batch, CpuEngine, Engine, Family, LoadedModel, ModelSource, RunError, recognise, warm_up,
};

mod divided;
mod giants;
mod hostile;
mod minilm;
mod parity;

fn folder(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("testdata/encoder").join(name)
}

fn source(name: &str) -> ModelSource {
    ModelSource::from_dir(&folder(name)).unwrap()
}

/// The same files, some of them replaced, added or (with `None`) taken away.
fn altered(name: &str, changes: &[(&str, Option<&[u8]>)]) -> ModelSource {
    let source = source(name);
    let mut files: std::collections::BTreeMap<_, _> = source
        .files()
        .map(|(name, content)| (name.to_owned(), content.clone()))
        .collect();
    for (name, content) in changes {
        match content {
            Some(content) => files.insert((*name).to_owned(), Bytes::copy_from_slice(content)),
            None => files.remove(*name),
        };
    }
    ModelSource::from_files(files)
}

fn load(source: &ModelSource) -> Arc<dyn LoadedModel> {
    CpuEngine::new(1).load(source).unwrap()
}

fn texts(texts: &[&str]) -> Tensor {
    Tensor::from_byte_strings(texts)
}

fn int64(rows: usize, values: &[i64]) -> Tensor {
    let shape = Shape::new(&[rows as u64, (values.len() / rows) as u64]).unwrap();
    let data: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    Tensor::new(Dtype::Int64, shape, data.into()).unwrap()
}

fn f32s(tensor: &Tensor) -> Vec<f32> {
    let mut values = Vec::new();
    assert!(tensor.extend_f32(&mut values));
    values
}

/// The answer to one request.
fn answer(model: &dyn LoadedModel, request: &[Tensor]) -> Vec<Tensor> {
    model.run(&Batch::new(&[request])).unwrap().remove(0)
}

fn refused(model: &dyn LoadedModel, request: &[Tensor]) -> String {
    let prepared = model.prepare(request).unwrap_err();
    // What is refused before is refused behind, too.
    assert_eq!(model.run(&Batch::new(&[request])), Err(prepared.clone()));
    prepared.to_string()
}

#[test]
fn folders_say_what_they_take_and_give() {
    let cases = [
        (
            "bert",
            "text BYTES [-1,1] → embedding FP32 [-1,16], tokens UINT32 [-1,1]",
        ),
        (
            "bert-classes",
            "text BYTES [-1,1] → scores FP32 [-1,3], logits FP32 [-1,3], label BYTES [-1,1]",
        ),
        (
            "bert-pairs",
            "query BYTES [-1,1], text BYTES [-1,1] → score FP32 [-1,1], logit FP32 [-1,1]",
        ),
    ];
    for (name, wanted) in cases {
        let description = recognise(&source(name)).unwrap();
        let side = |specs: &[paceline_protocol::TensorSpec]| {
            let specs = specs.iter();
            let told: Vec<_> = specs
                .map(|it| format!("{} {} {}", it.name, it.dtype, it.shape))
                .collect();
            told.join(", ")
        };
        let signature = &description.signature;
        let told = format!("{} → {}", side(&signature.inputs), side(&signature.outputs));
        assert_eq!(told, wanted);
        assert_eq!(description.family, Family::Encoder);
        assert_eq!(
            (description.rows_max, description.finite_inputs),
            (64, false)
        );
        assert_eq!(description.name.as_str(), "bert");
    }
}

#[test]
fn a_model_toml_names_and_overrides() {
    let toml = br#"
        name = "mine"
        family = "encoder"
        license = "MIT"
        [batching]
        rows_max = 8
        [encoder]
        input = "tokens"
        pooling = "cls"
        normalize = false
        tokens_max = 10
    "#;
    let plain = load(&source("bert"));
    let mine = load(&altered("bert", &[("model.toml", Some(toml))]));
    let description = mine.description();
    assert_eq!(description.name.as_str(), "mine");
    assert_eq!((description.rows_max, mine.tokens_max()), (8, Some(10)));
    assert_eq!(plain.tokens_max(), Some(24));

    let sequence = plain.tokenize("a line of riders").unwrap().unwrap();
    let ids: Vec<i64> = sequence.iter().map(|token| i64::from(token.id)).collect();
    let request = [int64(1, &ids), int64(1, &vec![1; ids.len()])];
    let cls = f32s(&answer(&*mine, &request)[0]);
    let length = cls.iter().map(|value| value * value).sum::<f32>().sqrt();
    assert!((length - 1.0).abs() > 0.1, "not normalized: {length}");
    let mean = f32s(&answer(&*plain, &[texts(&["a line of riders"])])[0]);
    assert!(
        mean.iter()
            .zip(&cls)
            .any(|(a, b)| (a - b / length).abs() > 0.01)
    );
}

#[test]
fn ids_and_text_are_two_ways_to_say_the_same() {
    for name in ["bert", "roberta", "xlm-roberta", "distilbert", "bert-pairs"] {
        let toml = b"name = \"ids\"\nfamily = \"encoder\"\n[encoder]\ninput = \"tokens\"\n";
        let by_text = load(&source(name));
        let by_ids = load(&altered(name, &[("model.toml", Some(toml))]));
        let is_pairs = name == "bert-pairs";
        let rows = ["bread and milk", "the wind is hard on whoever rides first"];
        let request = match is_pairs {
            true => vec![texts(&["who rides?", "wind"]), texts(&rows)],
            false => vec![texts(&rows)],
        };
        let prepared = by_text.prepare(&request).unwrap();
        // Padded, as clients of other servers send it.
        let (mut ids, mut mask, mut segments) = (Vec::new(), Vec::new(), Vec::new());
        for row in super::sequence::unpack(&prepared.inputs[0]) {
            let padding = 24 - row.tokens();
            ids.extend(
                row.ids()
                    .map(i64::from)
                    .chain(std::iter::repeat_n(1, padding)),
            );
            mask.extend([vec![1; row.tokens()], vec![0; padding]].concat());
            segments.extend(
                row.segments()
                    .map(|it| it as i64)
                    .chain(std::iter::repeat_n(0, padding)),
            );
        }
        let mut padded = vec![int64(2, &ids), int64(2, &mask)];
        if is_pairs {
            padded.push(int64(2, &segments));
        }
        assert_eq!(
            answer(&*by_ids, &padded),
            answer(&*by_text, &request),
            "{name}"
        );
        assert_eq!(by_ids.tokens(&padded), prepared.tokens, "{name}");
    }
}

#[test]
fn what_cannot_be_computed_is_refused_by_row() {
    let model = load(&source("bert"));
    let told = refused(
        &*model,
        &[texts(&["fine", "\u{1}".repeat(300_000).as_str()])],
    );
    assert!(
        told.contains("text must be texts in UTF-8 of at most 262144 bytes"),
        "{told}"
    );
    assert!(told.contains("row 1: 300000 bytes"), "{told}");
    let latin = Tensor::from_byte_strings(&[&b"caf\xe9"[..]]);
    let told = refused(&*model, &[latin]);
    assert!(told.contains("row 0: ") && told.contains("utf-8"), "{told}");
    let told = refused(&*model, &[Tensor::from_f32(1, &[1.0])]);
    assert!(told.contains("text must be BYTES [-1,1]"), "{told}");

    let toml = b"name = \"ids\"\nfamily = \"encoder\"\n[encoder]\ninput = \"tokens\"\n";
    let model = load(&altered("bert", &[("model.toml", Some(toml))]));
    let ones = int64(1, &[1, 1]);
    for (ids, mask, wanted) in [
        (int64(1, &[2, 5000]), &ones, "row 0: the token id 5000"),
        (int64(1, &[-1, 3]), &ones, "row 0: the token id 4294967295"),
        (
            int64(1, &[2, 3]),
            &int64(1, &[0, 1]),
            "row 0: 1 behind 0 ones",
        ),
        (
            int64(1, &[2, 3]),
            &int64(1, &[1, 2]),
            "row 0: 2 behind 1 ones",
        ),
        (
            int64(1, &[2, 3]),
            &int64(1, &[0, 0]),
            "row 0: a row of 0 tokens",
        ),
        (int64(1, &[2, 3]), &int64(1, &[1]), "row 0: [1,1]"),
        (
            int64(1, &[2; 25]),
            &int64(1, &[1; 25]),
            "row 0: a row of 25 tokens",
        ),
    ] {
        let told = refused(&*model, &[ids, mask.clone()]);
        assert!(told.contains(wanted), "{told}");
    }
    // One request's lapse names it, where it is one of several.
    let (good, bad) = (
        [int64(1, &[2, 3]), ones.clone()],
        [int64(1, &[999, 3]), ones],
    );
    let error = model.run(&Batch::new(&[&good, &bad])).unwrap_err();
    assert!(
        matches!(error, RunError::Input { request: 1, .. }),
        "{error}"
    );
}

#[test]
fn prepared_requests_are_answered_alike_and_counted() {
    let model = load(&source("bert"));
    let long = "wind ".repeat(60);
    let request = [texts(&["a line of riders", "", &long])];
    let prepared = model.prepare(&request).unwrap();
    assert_eq!(prepared.rows_cut, 1);
    assert_eq!(prepared.tokens, Some(6 + 2 + 24));
    assert_eq!(model.tokens(&request), prepared.tokens);
    assert_eq!(model.tokens(&prepared.inputs), prepared.tokens);
    assert_eq!(
        model.prepare(&prepared.inputs).unwrap().inputs,
        prepared.inputs
    );
    assert_eq!(answer(&*model, &request), answer(&*model, &prepared.inputs));
    let last = [prepared.inputs[0].slice_rows(2..3)];
    assert_eq!(model.tokens(&last), Some(24));
    assert_eq!(
        answer(&*model, &last)[0],
        answer(&*model, &request)[0].slice_rows(2..3)
    );
}

#[test]
fn a_file_that_pads_and_cuts_is_not_followed() {
    // tokenizer.json of this folder pads to 12 tokens and cuts at 6; the model's own length is 24.
    let file = String::from_utf8(std::fs::read(folder("bert/tokenizer.json")).unwrap()).unwrap();
    assert!(
        file.contains("\"Fixed\":12") && file.contains("\"max_length\":6"),
        "{file}"
    );
    let model = load(&source("bert"));
    assert_eq!(model.tokens(&[texts(&["wind"])]), Some(3));
    assert_eq!(
        model.tokens(&[texts(&["wind ".repeat(9).as_str()])]),
        Some(11)
    );
}

#[test]
fn every_token_of_a_text_is_told() {
    let model = load(&source("bert"));
    let text = "wind ".repeat(60);
    let tokens = model.tokenize(&text).unwrap().unwrap();
    assert_eq!(tokens.len(), 62, "uncut");
    assert!(tokens[0].is_special && tokens[61].is_special);
    assert_eq!(
        (tokens[0].text.as_str(), tokens[61].text.as_str()),
        ("[CLS]", "[SEP]")
    );
    for (number, token) in tokens[1..61].iter().enumerate() {
        assert_eq!((token.text.as_str(), token.is_special), ("wind", false));
        assert_eq!((token.start, token.end), (number * 5, number * 5 + 4));
    }
    let identity = crate::folder::tests::only_toml(crate::folder::tests::IDENTITY);
    assert!(load(&identity).tokenize("wind").is_none());
}

#[test]
fn a_warm_up_runs_texts_of_a_usual_length() {
    let model = load(&source("bert"));
    let sample = model.sample(5).unwrap();
    assert_eq!((sample[0].rows(), model.tokens(&sample)), (5, Some(5 * 24)));
    let warm = warm_up(&*model).unwrap();
    assert!(warm.full_batch_ns > warm.one_row_ns, "{warm:?}");
}

#[test]
fn memory_is_counted_from_shapes() {
    let model = load(&source("bert"));
    let tokenizer = std::fs::read(folder("bert/tokenizer.json")).unwrap().len() as u64;
    // 102 words, 40 positions and 2 segments of 16; two layers of 16·48 + 16·16 + 16·24 + 24·16
    // with outputs filled up to 64, 32, 32 and 32, a bias for each of them, and two norms; one norm.
    let layer = 17 * 64 + 17 * 32 + 17 * 32 + 25 * 32 + 4 * 16;
    let wanted = (144 * 16 + 2 * layer + 2 * 16) * 4 + 8 * tokenizer;
    assert_eq!(model.bytes().weights_bytes, wanted);
    let engine = CpuEngine::new(1);
    let held = engine.load(&source("bert")).unwrap();
    assert_eq!(engine.taken_bytes(), held.bytes().total_bytes(1));
    let rows = held.bytes().activations_bytes;
    assert!((64 * 24 * 4..1 << 20).contains(&rows), "{rows}");
}

/// Words of the test vocabularies, and none.
fn text() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        "[a-z]{0,9}",
        Just("paceline".to_owned()),
        Just("wind".to_owned()),
        "\\PC{0,3}"
    ];
    proptest::collection::vec(word, 0..40).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The same to the last bit alone, in company, and in any order.
    #[test]
    fn an_answer_does_not_depend_on_its_company(rows in proptest::collection::vec(text(), 1..9)) {
        let engines = [CpuEngine::new(1), CpuEngine::new(1).with_reference()];
        for (name, engine) in ["bert", "roberta-classes"].iter().flat_map(|name| engines.iter().map(move |engine| (name, engine))) {
            let model = engine.load(&source(name)).unwrap();
            let requests: Vec<_> = rows.iter().map(|row| [texts(&[row])]).collect();
            let views: Vec<&[Tensor]> = requests.iter().map(|request| &request[..]).collect();
            let together = model.run(&Batch::new(&views)).unwrap();
            let all: Vec<_> = rows.iter().map(String::as_str).collect();
            let one = answer(&*model, &[texts(&all)]);
            let backwards: Vec<_> = views.iter().rev().copied().collect();
            let backwards = model.run(&Batch::new(&backwards)).unwrap();
            for (row, request) in requests.iter().enumerate() {
                let alone = answer(&*model, request);
                prop_assert_eq!(&alone, &together[row]);
                prop_assert_eq!(&alone, &backwards[rows.len() - 1 - row]);
                for (alone, all) in alone.iter().zip(&one) {
                    prop_assert_eq!(alone, &all.slice_rows(row as u64..row as u64 + 1));
                }
            }
        }
    }

    /// Whatever the text: as many tokens as are told, cut at the model's length, never padded.
    #[test]
    fn tokens_are_counted_and_cut(row in text()) {
        for name in ["bert", "roberta", "xlm-roberta"] {
            let model = load(&source(name));
            let all = model.tokenize(&row).unwrap().unwrap();
            let prepared = model.prepare(&[texts(&[&row])]).unwrap();
            prop_assert_eq!(prepared.tokens, Some(all.len().min(24) as u64));
            prop_assert_eq!(prepared.rows_cut, u64::from(all.len() > 24));
            let kept = super::sequence::unpack(&prepared.inputs[0]).next().unwrap();
            let last = all.last().unwrap().id;
            prop_assert_eq!(kept.ids().last(), Some(last), "a cut text has its end");
            let both = kept.ids().zip(&all).take(kept.tokens() - 1);
            prop_assert!(both.into_iter().all(|(id, token)| id == token.id));
        }
    }
}
