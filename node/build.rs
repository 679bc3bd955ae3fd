//! Turns `proto/` into Rust: messages, and the services that answer them.

use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new("proto");
    let mut files = protox::compile(["inference.proto", "health.proto"], [folder])?;
    for service in files.file.iter_mut().flat_map(|file| &mut file.service) {
        // Inference is served in front of the router, without a codec that copies tensors.
        service
            .method
            .retain(|method| !INFERENCE.contains(&method.name()));
    }
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .compile_fds(files)?;
    println!("cargo:rerun-if-changed={}", folder.display());
    Ok(())
}

const INFERENCE: [&str; 2] = ["ModelInfer", "ModelStreamInfer"];
