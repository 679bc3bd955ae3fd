//! Folders that lie: each is refused by name, and costs little to refuse.

use super::*;
use crate::LoadError;
use crate::weights::tests::file as safetensors;

pub(super) fn refusal(source: &ModelSource) -> String {
    match CpuEngine::new(1).load(source) {
        Ok(_) => "loaded".to_owned(),
        Err(LoadError::Recognise(error)) => error.to_string(),
        Err(error) => panic!("{error}"),
    }
}

/// What is said when, in a file of a folder, `from` is replaced by `to`.
fn replaced(name: &str, file: &str, from: &str, to: &str) -> String {
    let text = std::fs::read_to_string(folder(name).join(file)).unwrap();
    assert!(text.contains(from), "{file} of {name}: {from}");
    let text = text.replacen(from, to, 1);
    refusal(&altered(name, &[(file, Some(text.as_bytes()))]))
}

/// What is replaced in the `config.json` of `bert`, by what, and what is said about it.
const CONFIG_LAPSES: &[(&str, &str, &str)] = &[
    (
        "\"num_hidden_layers\": 2",
        "\"num_hidden_layers\": 10000",
        "num_hidden_layers is 10000; allowed: 1 to 64",
    ),
    (
        "\"num_hidden_layers\": 2",
        "\"num_hidden_layers\": 0",
        "num_hidden_layers is 0; allowed: 1 to 64",
    ),
    (
        "\"num_hidden_layers\": 2",
        "\"num_hidden_layers\": 2.5",
        "num_hidden_layers is 2.5; allowed: 1 to 64",
    ),
    (
        "\"num_hidden_layers\": 2,",
        "",
        "config.json has no num_hidden_layers; it must be 1 to 64",
    ),
    (
        "\"hidden_size\": 16",
        "\"hidden_size\": 1000000000",
        "hidden_size is 1000000000; allowed: 1 to 4096",
    ),
    (
        "\"hidden_size\": 16",
        "\"hidden_size\": -16",
        "hidden_size is -16; allowed: 1 to 4096",
    ),
    (
        "\"hidden_size\": 16",
        "\"hidden_size\": \"16\"",
        "hidden_size is \"16\"; allowed: 1 to 4096",
    ),
    (
        "\"num_attention_heads\": 2",
        "\"num_attention_heads\": 3",
        "num_attention_heads is 3; allowed: a divisor of hidden_size, which is 16",
    ),
    (
        "\"num_attention_heads\": 2",
        "\"num_attention_heads\": 0",
        "num_attention_heads is 0; allowed: 1 to 64",
    ),
    (
        "\"intermediate_size\": 24",
        "\"intermediate_size\": 16385",
        "intermediate_size is 16385; allowed: 1 to 16384",
    ),
    (
        "\"vocab_size\": 102",
        "\"vocab_size\": 4294967296",
        "vocab_size is 4294967296; allowed: 1 to 1000000",
    ),
    (
        "\"max_position_embeddings\": 40",
        "\"max_position_embeddings\": 99999",
        "max_position_embeddings is 99999; allowed: 1 to 8194",
    ),
    (
        "\"type_vocab_size\": 2",
        "\"type_vocab_size\": 17",
        "type_vocab_size is 17; allowed: 1 to 16",
    ),
    (
        "\"layer_norm_eps\": 1e-12",
        "\"layer_norm_eps\": 1",
        "layer_norm_eps is 1; allowed: 0 to 0.01",
    ),
    (
        "\"hidden_act\": \"gelu\"",
        "\"hidden_act\": \"silu\"",
        "hidden_act is \"silu\"; allowed: \"gelu\", \"gelu_new\"",
    ),
    (
        "\"is_decoder\": false",
        "\"is_decoder\": true",
        "is_decoder is true; allowed: false",
    ),
    (
        "\"is_decoder\": false",
        "\"position_embedding_type\": \"relative_key\"",
        "position_embedding_type is \"relative_key\"; allowed: \"absolute\"",
    ),
    (
        "\"model_type\": \"bert\"",
        "\"model_type\": \"llama\"",
        "a Hugging Face model of the type 'llama', which this build does not serve; served: bert, roberta, xlm-roberta, distilbert",
    ),
    (
        "\"model_type\": \"bert\"",
        "\"model_type\": 7",
        "model_type is 7; allowed: a text",
    ),
    (
        "\"vocab_size\": 102\n}",
        "\"vocab_size\": 102",
        "'config.json' is not JSON as it should be",
    ),
    (
        "\"vocab_size\": 102",
        "\"vocab_size\": 101",
        "'embeddings.word_embeddings.weight' must be F32, F16 or BF16 [101, 16], is F32 [102, 16]",
    ),
    (
        "\"num_hidden_layers\": 2",
        "\"num_hidden_layers\": 3",
        "the weights lack the tensor 'encoder.layer.2.attention.self.query.weight'",
    ),
    (
        "\"num_hidden_layers\": 2",
        "\"num_hidden_layers\": 1",
        "the weights hold 'encoder.layer.1.attention.output.LayerNorm.bias', but config.json speaks of 1 layers",
    ),
];

#[test]
fn a_lapse_in_config_json_names_field_value_and_what_is_allowed() {
    for (from, to, wanted) in CONFIG_LAPSES {
        let told = replaced("bert", "config.json", from, to);
        assert!(told.contains(wanted), "{to}: {told}");
    }
    let cases = [
        (
            "\"0\": \"road\",",
            "",
            "id2label is an object; allowed: an object with a name",
        ),
        (
            "\"0\": \"road\"",
            "\"0\": 5",
            "id2label is an object; allowed: an object with a name",
        ),
        (
            "\"model_type\"",
            "\"problem_type\": \"guess\", \"model_type\"",
            "problem_type is \"guess\"; allowed: \"regression\"",
        ),
    ];
    for (from, to, wanted) in cases {
        let told = replaced("bert-classes", "config.json", from, to);
        assert!(told.contains(wanted), "{to}: {told}");
    }
    let told = replaced(
        "bert-pairs",
        "config.json",
        "\"type_vocab_size\": 2",
        "\"type_vocab_size\": 1",
    );
    assert!(
        told.contains("type_vocab_size is 1; allowed: 2 and more, where pairs"),
        "{told}"
    );
    let told = replaced(
        "roberta",
        "config.json",
        "\"pad_token_id\": 1",
        "\"pad_token_id\": 39",
    );
    assert!(
        told.contains("max_position_embeddings is 40; allowed: 41 and more"),
        "{told}"
    );
}

#[test]
fn a_lapse_in_the_settings_names_file_and_field() {
    let pooling = "1_Pooling/config.json";
    let cases = [
        (
            "modules.json",
            "models.Normalize",
            "models.Dense",
            "modules is Transformer, Pooling, Dense; allowed: a Transformer, then",
        ),
        (
            "modules.json",
            "\"path\": \"1_Pooling\"",
            "\"path\": \"../../etc\"",
            "path of Pooling is \"../../etc\"; allowed: \"1_Pooling\"",
        ),
        ("modules.json", "[", "{", "'modules.json' is not JSON"),
        (
            pooling,
            "\"pooling_mode_mean_tokens\": true",
            "\"pooling_mode_lasttoken\": true",
            "pooling_mode_lasttoken is true; allowed: exactly one of",
        ),
        (
            pooling,
            "\"pooling_mode_cls_token\": false",
            "\"pooling_mode_cls_token\": true",
            "is true; allowed: exactly one of",
        ),
        (
            pooling,
            "\"pooling_mode_mean_tokens\": true",
            "\"pooling_mode_mean_tokens\": false",
            "pooling_mode is null; allowed: exactly one of",
        ),
        (
            "sentence_bert_config.json",
            "24",
            "-1",
            "max_seq_length is -1; allowed: 1 to ",
        ),
        (
            "sentence_bert_config.json",
            "false",
            "3",
            "do_lower_case is 3; allowed: true or false",
        ),
    ];
    for (file, from, to, wanted) in cases {
        let told = replaced("bert", file, from, to);
        assert!(told.contains(wanted), "{file} {to}: {told}");
    }
    let told = replaced("distilbert", "tokenizer_config.json", "24", "\"long\"");
    assert!(
        told.contains("model_max_length is \"long\"; allowed: a number from 1 on"),
        "{told}"
    );
    let told = replaced(
        "distilbert",
        "tokenizer_config.json",
        "24",
        "1000000000000000019884624838656",
    );
    assert_eq!(told, "loaded", "which is how no limit is written");
}

/// A folder, what its `model.toml` says, and what is said about it.
const TOML_LAPSES: &[(&str, &str, &str)] = &[
    (
        "bert",
        "[encoder]\ntokens_max = 41",
        "encoder.tokens_max is 41; allowed: 1 to 40",
    ),
    (
        "bert",
        "[encoder]\ntask = \"rerank\"",
        "encoder.task is a task of a head for classes; allowed: \"embedding\"",
    ),
    (
        "bert-classes",
        "[encoder]\ntask = \"rerank\"",
        "encoder.task is \"rerank\" of 3 classes; allowed: one class",
    ),
    (
        "bert-classes",
        "[encoder]\npooling = \"mean\"",
        "encoder.pooling is set; allowed: left out",
    ),
    (
        "bert",
        "[encoder]\nweights = \"x\"",
        "unknown field `weights`",
    ),
    (
        "bert",
        "[encoder]\npooling = \"max\"",
        "unknown variant `max`, expected `mean` or `cls`",
    ),
    (
        "bert",
        "[[inputs]]\nname = \"a\"\ndtype = \"FP32\"\nshape = [-1]",
        "model.toml, inputs: an encoder's follow from its folder",
    ),
    (
        "bert",
        "[mlp]\nweights = \"x\"\nactivation = \"relu\"\nhead = \"none\"",
        "[mlp] is for family = \"mlp\" only, this is encoder",
    ),
];

const HEAD: &str = "name = \"m\"\nfamily = \"encoder\"\n";

#[test]
fn a_lapse_in_model_toml_names_the_key() {
    for (name, toml, wanted) in TOML_LAPSES {
        let toml = format!("{HEAD}{toml}\n");
        let told = refusal(&altered(name, &[("model.toml", Some(toml.as_bytes()))]));
        assert!(told.contains(wanted), "{toml}: {told}");
    }
    let toml = format!("{}[encoder]\n", crate::folder::tests::IDENTITY);
    let told = refusal(&crate::folder::tests::only_toml(&toml));
    assert!(
        told.contains("[encoder] is for family = \"encoder\" only, this is identity"),
        "{told}"
    );
    let text = format!("{HEAD}[encoder]\ninput = \"text\"\n");
    let told = refusal(&altered(
        "bert",
        &[
            ("tokenizer.json", None),
            ("model.toml", Some(text.as_bytes())),
        ],
    ));
    assert!(
        told.contains("no file 'tokenizer.json', which cuts texts"),
        "{told}"
    );
    let told = refusal(&altered(
        "bert",
        &[("config.json", None), ("model.toml", Some(text.as_bytes()))],
    ));
    assert!(
        told.contains("no file 'config.json', which says which architecture"),
        "{told}"
    );
    assert_eq!(
        refusal(&altered("bert", &[("tokenizer.json", None)])),
        "loaded",
        "takes ids"
    );
}

/// A file of weights like that of `bert`, with its header changed.
pub(super) fn header(
    change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>),
) -> Vec<u8> {
    let whole = std::fs::read(folder("bert/model.safetensors")).unwrap();
    let (length, rest) = whole.split_first_chunk::<8>().unwrap();
    let (json, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: serde_json::Value = serde_json::from_slice(json).unwrap();
    change(header.as_object_mut().unwrap());
    safetensors(&header.to_string(), data)
}

#[test]
fn weights_that_lie_are_refused_by_name() {
    let told =
        |weights: Vec<u8>| refusal(&altered("bert", &[("model.safetensors", Some(&weights))]));
    let words = "embeddings.word_embeddings.weight";
    assert_eq!(told(header(|_| {})), "loaded");
    let whole = std::fs::read(folder("bert/model.safetensors")).unwrap();
    assert!(
        told(whole[..whole.len() - 1].to_vec())
            .contains("'model.safetensors': the file has 30063 bytes")
    );
    for length in [u64::MAX, 1 << 63, (16 << 20) + 1] {
        let giant = [&length.to_le_bytes()[..], &whole[8..]].concat();
        assert!(told(giant).contains("at most 16777216 are read"));
    }
    let overlap = header(|header| {
        let other = header["embeddings.LayerNorm.bias"]["data_offsets"].clone();
        header["embeddings.LayerNorm.weight"]["data_offsets"] = other;
    });
    assert!(told(overlap).contains("'model.safetensors': the header cannot be read"));
    let outside = header(|header| header[words]["data_offsets"] = [0u64, 1 << 40].into());
    assert!(told(outside).contains("'model.safetensors': the file has 30"));
    for (dtype, shape) in [("I32", [102, 16]), ("F32", [16, 102]), ("F16", [204, 16])] {
        let lie = header(|header| {
            header[words]["dtype"] = dtype.into();
            header[words]["shape"] = shape.into();
        });
        let wanted = format!("'{words}' must be F32, F16 or BF16 [102, 16], is {dtype} {shape:?}");
        assert_eq!(told(lie), wanted);
    }
    let eight = header(|header| {
        header[words]["dtype"] = "F64".into();
        header[words]["shape"] = [51, 16].into();
    });
    assert!(told(eight).contains("is F64 [51, 16]"));
}

#[test]
fn weights_that_lack_or_hide_layers_are_refused_by_name() {
    let told =
        |weights: Vec<u8>| refusal(&altered("bert", &[("model.safetensors", Some(&weights))]));
    let without = header(|header| {
        let bias = header.remove("encoder.layer.1.output.dense.bias").unwrap();
        header.insert("spare".into(), bias);
    });
    assert_eq!(
        told(without),
        "the weights lack the tensor 'encoder.layer.1.output.dense.bias'"
    );
    let beyond = header(|header| {
        let pooler = header.remove("pooler.dense.bias").unwrap();
        header.insert("encoder.layer.02.output.dense.bias".into(), pooler);
    });
    assert!(
        told(beyond)
            .contains("hold 'encoder.layer.02.output.dense.bias', but config.json speaks of 2")
    );
    assert!(told(b"\x80\x02}q\0.".to_vec()).contains("a Python pickle, which can run code"));
    let pickled: [(&str, Option<&[u8]>); 2] = [
        ("model.safetensors", None),
        ("pytorch_model.bin", Some(b"PK\x03\x04\0\0\0\0data.pkl")),
    ];
    let told = refusal(&altered("bert", &pickled));
    assert!(
        told.contains("'pytorch_model.bin' is recognised as a PyTorch checkpoint"),
        "{told}"
    );
    let told = refusal(&altered("bert", &[("model.safetensors", None)]));
    assert!(
        told.contains("no file 'model.safetensors', which holds the weights"),
        "{told}"
    );
}

#[test]
fn every_used_weight_is_finite() {
    let whole = std::fs::read(folder("bert-classes/model.safetensors")).unwrap();
    let tensors = ::safetensors::SafeTensors::deserialize(&whole).unwrap();
    let start = whole.as_ptr() as usize;
    let mut refused = 0;
    for (name, tensor) in tensors.tensors() {
        let mut poisoned = whole.clone();
        let at = tensor.data().as_ptr() as usize - start;
        poisoned[at..at + 2].copy_from_slice(&half::f16::INFINITY.to_le_bytes());
        let told = refusal(&altered(
            "bert-classes",
            &[("model.safetensors", Some(&poisoned))],
        ));
        assert_eq!(told, format!("'{name}' is not finite at element 0"));
        refused += 1;
    }
    assert_eq!(refused, tensors.len());
}

#[test]
fn a_tokenizer_that_does_not_fit_is_refused() {
    let told = |tokenizer: &[u8]| refusal(&altered("bert", &[("tokenizer.json", Some(tokenizer))]));
    let whole = std::fs::read_to_string(folder("bert/tokenizer.json")).unwrap();
    for broken in [
        "",
        "{}",
        "[]",
        "{\"version\":\"2.0\"}",
        &"[".repeat(5000),
        &whole[..whole.len() / 2],
    ] {
        let told = told(broken.as_bytes());
        assert!(
            told.starts_with("'tokenizer.json' cannot be used: "),
            "{told}"
        );
    }
    let beyond = whole.replace("\"wind\":", "\"calm\":102,\"wind\":");
    assert_eq!(
        told(beyond.as_bytes()),
        "'tokenizer.json' cannot be used: it has ids up to 102, config.json has vocab_size 102"
    );
    // A template that alone is longer than a text may be.
    let special = "{\"SpecialToken\":{\"id\":\"[CLS]\",\"type_id\":0}},";
    let template = whole.replacen(special, &special.repeat(30), 1);
    assert_ne!(template, whole);
    assert_eq!(
        told(template.as_bytes()),
        "'tokenizer.json' cannot be used: it adds 31 tokens to each text of at most 24"
    );
    // One whose template names a token that it does not have.
    let lost = whole.replace(
        "\"special_tokens\":{\"[CLS]\"",
        "\"special_tokens\":{\"[CLZ]\"",
    );
    assert_ne!(lost, whole);
    assert_eq!(
        told(lost.as_bytes()),
        "'tokenizer.json' cannot be used: it contradicts itself"
    );
    // One that says of its tokens that they are of a segment that the model lacks.
    let segment = whole.replace("\"type_id\":0", "\"type_id\":7");
    let model = load(&altered(
        "bert",
        &[("tokenizer.json", Some(segment.as_bytes()))],
    ));
    assert!(super::refused(&*model, &[texts(&["wind"])]).contains("row 0: the segment 7"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Loaded or refused, in words; and what is loaded answers.
    #[test]
    fn no_flipped_byte_makes_it_panic(file in 0usize..6, at in any::<usize>(), value: u8) {
        let file = [
            "config.json", "modules.json", "1_Pooling/config.json",
            "sentence_bert_config.json", "tokenizer.json", "model.safetensors",
        ][file];
        let mut content = source("bert").file(file).unwrap().to_vec();
        // Of weights the header: what a changed number does is tested elsewhere.
        let at = at % content.len().min(if file == "model.safetensors" { 4000 } else { usize::MAX });
        content[at] = value;
        if let Ok(model) = CpuEngine::new(1).load(&altered("bert", &[(file, Some(&content))])) {
            let request: Vec<_> = model.description().signature.inputs.iter()
                .map(|_| texts(&["a line of riders", ""])).collect();
            let _ = model.prepare(&request);
            let _ = model.run(&Batch::new(&[&request]));
        }
    }
}
