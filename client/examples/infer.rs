//! Asks the demo cluster which digit a picture shows.
//!
//! ```text
//! paceline up --demo
//! cargo run -p paceline-client --example infer -- paceline-cluster/context.toml
//! ```

use std::path::PathBuf;
use std::time::Duration;

use paceline_client::{Client, Tensor};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Without an argument, PACELINE_CONTEXT names the file.
    let context = std::env::args_os().nth(1).map(PathBuf::from);
    let client = Client::from_context(context.as_deref()).await?;

    // `digits` takes rows of 8 by 8 grey values from 0 to 16: `pixels`, FP32, [-1, 64].
    let pixels: Vec<f32> = PICTURE
        .iter()
        .flat_map(|line| line.bytes())
        .map(|grey| if grey == b'#' { 16.0 } else { 0.0 })
        .collect();
    let request = client
        .infer("digits")
        .input("pixels", Tensor::from_f32(64, &pixels))
        .deadline(Duration::from_millis(500));

    match request.send().await {
        Ok(answer) => {
            let label = answer
                .output("label")
                .ok_or("digits has an output 'label'")?;
            let label = label.byte_strings().next().unwrap_or_default();
            println!(
                "It shows a {}, says version {} on node {} at epoch {}.",
                String::from_utf8_lossy(label),
                answer.version,
                answer.node,
                answer.epoch
            );
            Ok(())
        }
        Err(error) => {
            // Whether to try again, and when, is part of the error.
            eprintln!("{error}; retryable: {}", error.is_retryable);
            Err(error.into())
        }
    }
}

const PICTURE: [&str; 8] = [
    "..####..", ".##..##.", ".##..##.", ".##..##.", ".##..##.", ".##..##.", ".##..##.", "..####..",
];
