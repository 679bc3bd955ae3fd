//! Files that are too long, or that would take much memory once they are read.

use std::collections::BTreeMap;

use super::hostile::{header, refusal};
use super::*;
use crate::SourceError;

/// A folder like `bert` on disk, with one file grown to a length that it does not occupy.
fn grown(file: &str, bytes: u64) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("1_Pooling")).unwrap();
    for (name, content) in source("bert").files() {
        std::fs::write(copy.path().join(name), content).unwrap();
    }
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(copy.path().join(file))
        .unwrap();
    file.set_len(bytes).unwrap();
    copy
}

#[test]
fn giants_are_refused_unread() {
    for (file, bytes, allowed) in [
        ("tokenizer.json", 2u64 << 30, 32u64 << 20),
        ("config.json", 2 << 30, 1 << 20),
        ("modules.json", 2 << 30, 1 << 20),
        ("1_Pooling/config.json", 2 << 30, 1 << 20),
        ("model.safetensors", (3 << 30) + 1, 3 << 30),
    ] {
        let grown = grown(file, bytes);
        let told = ModelSource::from_dir(grown.path()).unwrap_err();
        assert!(
            matches!(&told, SourceError::TooLarge { file: named, allowed: most } if named == file && *most == allowed),
            "{told}"
        );
        // The same where files lie elsewhere: what is too long is never asked for.
        let whole = source("bert");
        let mut lengths: BTreeMap<String, u64> = whole
            .files()
            .map(|(name, content)| (name.to_owned(), content.len() as u64))
            .collect();
        lengths.insert(file.to_owned(), bytes);
        let selected = ModelSource::select(&lengths, |name, bytes| {
            let content = whole.file(name).unwrap();
            if bytes > content.len() as u64 {
                Err(name.to_owned())
            } else {
                Ok(content.slice(..bytes as usize))
            }
        });
        let told = refusal(&selected.unwrap());
        assert_eq!(
            told,
            format!("'{file}' has {bytes} bytes; at most {allowed} are read")
        );
    }
}

#[test]
fn a_giant_of_another_architecture_is_told_by_its_name() {
    let grown = grown("model.safetensors", 5 << 30);
    let config = std::fs::read_to_string(grown.path().join("config.json")).unwrap();
    let config = config.replace("\"model_type\": \"bert\"", "\"model_type\": \"llama\"");
    std::fs::write(grown.path().join("config.json"), config).unwrap();
    let told = refusal(&ModelSource::from_dir(grown.path()).unwrap());
    assert!(
        told.contains("a Hugging Face model of the type 'llama'"),
        "{told}"
    );
}

#[test]
fn files_are_selected_as_a_folder_is_read() {
    for name in ["bert", "distilbert", "roberta-classes"] {
        let mut files: BTreeMap<String, Bytes> = source(name)
            .files()
            .map(|(name, content)| (name.to_owned(), content.clone()))
            .collect();
        files.insert("onnx/model.onnx".into(), Bytes::from_static(b"not needed"));
        let lengths = files
            .iter()
            .map(|(name, content)| (name.clone(), content.len() as u64))
            .collect();
        let select = |lengths: &BTreeMap<String, u64>| {
            ModelSource::select(lengths, |name, bytes| {
                Ok::<_, ()>(files[name].slice(..bytes as usize))
            })
        };
        let selected = select(&lengths).unwrap();
        assert_eq!(
            selected.files().collect::<Vec<_>>(),
            source(name).files().collect::<Vec<_>>(),
            "{name}"
        );
        assert_eq!(recognise(&selected), recognise(&source(name)));
    }
}

/// The most memory that this process ever had, in bytes.
#[cfg(target_os = "linux")]
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Hostile folders in a process of their own, so that what it ever held is theirs.
#[cfg(target_os = "linux")]
#[test]
fn refusals_cost_little_memory() {
    const CHILD: &str = "PACELINE_HOSTILE_CHILD";
    if std::env::var_os(CHILD).is_none() {
        let name = "family::encoder::tests::giants::refusals_cost_little_memory";
        let run = std::process::Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&run.stdout);
        assert!(
            run.status.success() && told.contains("refused in"),
            "{told}"
        );
        print!("{told}");
        return;
    }
    let before = peak_bytes();
    refuse_small_folders();
    let grew = peak_bytes() - before;
    assert!(grew < 128 << 20, "{grew} bytes for folders of a MiB");
    refuse_tokenizers();
    let with_tokenizer = peak_bytes() - before;
    assert!(
        with_tokenizer < 640 << 20,
        "{with_tokenizer} bytes for a tokenizer"
    );
    println!(
        "refused in {} KiB, {} MiB with a tokenizer",
        grew >> 10,
        with_tokenizer >> 20
    );
}

#[cfg(target_os = "linux")]
fn told(file: &str, content: &[u8]) -> String {
    refusal(&altered("bert", &[(file, Some(content))]))
}

/// An object with a list of as many numbers as fit: two bytes each, and 32 in memory.
#[cfg(target_os = "linux")]
fn numbers(key: &str, bytes: usize) -> String {
    format!("{{{key}[{}0]}}", "0,".repeat(bytes / 2 - 32))
}

#[cfg(target_os = "linux")]
fn refuse_small_folders() {
    for (file, bytes) in [
        ("tokenizer.json", 2 << 30),
        ("config.json", 2 << 30),
        ("model.safetensors", 4 << 30),
    ] {
        assert!(ModelSource::from_dir(grown(file, bytes).path()).is_err());
    }
    // Sizes that are allowed each, with a file that has none of them.
    let config = std::fs::read_to_string(folder("bert/config.json")).unwrap();
    let largest = config
        .replace("\"hidden_size\": 16", "\"hidden_size\": 4096")
        .replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 64")
        .replace("\"vocab_size\": 102", "\"vocab_size\": 1000000")
        .replace("\"intermediate_size\": 24", "\"intermediate_size\": 16384");
    let told_largest = told("config.json", largest.as_bytes());
    assert!(
        told_largest.contains("[1000000, 4096], is F32 [102, 16]"),
        "{told_largest}"
    );
    let layers = config.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 10000");
    assert!(told("config.json", layers.as_bytes()).contains("allowed: 1 to 64"));
    let lies = header(|header| {
        let words = &mut header["embeddings.word_embeddings.weight"];
        words["shape"] = [1u64 << 31, 1 << 31].into();
    });
    assert!(told("model.safetensors", &lies).contains("the header cannot be read"));
    let config = numbers("\"model_type\":\"bert\",\"a\":", 1 << 20);
    let told_config = told("config.json", config.as_bytes());
    assert!(
        told_config.contains("config.json has no hidden_size"),
        "{told_config}"
    );
}

#[cfg(target_os = "linux")]
fn refuse_tokenizers() {
    let key = "\"version\":\"1.0\",\"model\":";
    for (bytes, wanted) in [
        (32 << 20, "more than 3000000 values"),
        (5 << 20, "cannot be used"),
    ] {
        let tokenizer = numbers(key, bytes);
        assert!(told("tokenizer.json", tokenizer.as_bytes()).contains(wanted));
    }
    let whole = std::fs::read_to_string(folder("bert/tokenizer.json")).unwrap();
    let words: String = (0..1_000_000)
        .map(|word| format!("\"w{word}\":{word},"))
        .collect();
    let many = whole.replace("\"wind\":", &format!("{words}\"wind\":"));
    assert!(told("tokenizer.json", many.as_bytes()).contains("ids up to 999999"));
}
