//! Bodies that say what the server and its models are, and whether they are ready.

use bytes::Bytes;
use paceline_protocol::{Signature, TensorSpec, VersionNumber};

use super::json::write::{self, document, flag, list};

/// What the protocol tells about a model.
#[derive(Clone, Copy, Debug)]
pub struct ModelMetadata<'a> {
    /// Its name.
    pub name: &'a str,
    /// The versions that serve.
    pub versions: &'a [VersionNumber],
    /// The family that runs it; the platform is called after the family.
    pub family: &'a str,
    /// Its inputs and outputs.
    pub signature: &'a Signature,
}

/// Body of `GET /v2`.
pub fn server(version: &str, extensions: &[&str]) -> Bytes {
    document(|out| {
        write::string_member(out, "name", PRODUCT);
        write::string_member(out, "version", version);
        write::key(out, "extensions");
        list(out, extensions.iter(), |out, name| write::string(out, name));
    })
}

/// Body of `GET /v2/models/MODEL`.
pub fn model(metadata: &ModelMetadata<'_>) -> Bytes {
    document(|out| {
        write::string_member(out, "name", metadata.name);
        write::key(out, "versions");
        list(out, metadata.versions.iter(), |out, version| {
            write::string(out, &version.to_string());
        });
        write::string_member(out, "platform", &platform(metadata.family));
        write::key(out, "inputs");
        list(out, metadata.signature.inputs.iter(), spec);
        write::key(out, "outputs");
        list(out, metadata.signature.outputs.iter(), spec);
    })
}

/// Body of `GET /v2/health/live`.
pub fn live(is_live: bool) -> Bytes {
    document(|out| flag(out, "live", is_live))
}

/// Body of `GET /v2/health/ready`.
pub fn ready(is_ready: bool) -> Bytes {
    document(|out| flag(out, "ready", is_ready))
}

/// Body of `GET /v2/models/MODEL/ready`.
pub fn model_ready(name: &str, is_ready: bool) -> Bytes {
    document(|out| {
        write::string_member(out, "name", name);
        flag(out, "ready", is_ready);
    })
}

/// Body of `GET /v2/models`.
pub fn models<'a>(names: impl Iterator<Item = &'a str>) -> Bytes {
    document(|out| {
        write::key(out, "models");
        list(out, names, write::string);
    })
}

/// The platform of a family's models.
pub fn platform(family: &str) -> String {
    format!("{PRODUCT}_{family}")
}

/// What the server calls itself.
pub const PRODUCT: &str = "paceline";

fn spec(out: &mut Vec<u8>, spec: &TensorSpec) {
    out.push(b'{');
    write::string_member(out, "name", &spec.name);
    write::string_member(out, "datatype", spec.dtype.name());
    write::key(out, "shape");
    list(out, spec.shape.0.iter(), |out, dim| {
        write::signed(out, i64::from(*dim))
    });
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use paceline_protocol::{Dim, Dtype, ShapePattern};

    fn text(body: Bytes) -> String {
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[test]
    fn bodies_are_what_clients_expect() {
        let spec = |name: &str, dtype, dims: &[Dim]| TensorSpec {
            name: name.into(),
            dtype,
            shape: ShapePattern(dims.to_vec()),
        };
        let signature = Signature {
            inputs: vec![spec("pixels", Dtype::Fp32, &[Dim::Any, Dim::Exactly(64)])],
            outputs: vec![spec(
                "label \"x\"",
                Dtype::Bytes,
                &[Dim::Any, Dim::Exactly(1)],
            )],
        };
        let metadata = ModelMetadata {
            name: "digits",
            versions: &[VersionNumber(1), VersionNumber(12)],
            family: "linear",
            signature: &signature,
        };
        assert_eq!(
            text(model(&metadata)),
            r#"{"name":"digits","versions":["1","12"],"platform":"paceline_linear","inputs":[{"name":"pixels","datatype":"FP32","shape":[-1,64]}],"outputs":[{"name":"label \"x\"","datatype":"BYTES","shape":[-1,1]}]}"#
        );
        assert_eq!(
            text(server("0.1.0", &["binary_tensor_data", "classification"])),
            r#"{"name":"paceline","version":"0.1.0","extensions":["binary_tensor_data","classification"]}"#
        );
        assert_eq!(text(live(true)), r#"{"live":true}"#);
        assert_eq!(text(ready(false)), r#"{"ready":false}"#);
        assert_eq!(text(model_ready("m", true)), r#"{"name":"m","ready":true}"#);
        assert_eq!(
            text(models(["a", "b"].into_iter())),
            r#"{"models":["a","b"]}"#
        );
        assert_eq!(text(models([].into_iter())), r#"{"models":[]}"#);
    }
}
