//! Which paths of the Open Inference Protocol there are.

/// What a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    Live,
    Ready,
    Server,
    Models,
    Model {
        model: &'a str,
        version: Option<&'a str>,
    },
    ModelReady {
        model: &'a str,
        version: Option<&'a str>,
    },
    Infer {
        model: &'a str,
        version: Option<&'a str>,
    },
    /// Everything under `/v2/paceline/`.
    Operator,
    Unknown,
}

impl<'a> Route<'a> {
    pub(super) fn of(path: &'a str) -> Self {
        let Some(rest) = path.strip_prefix("/v2") else {
            return Self::Unknown;
        };
        match rest.strip_prefix("/models/") {
            Some(rest) => Self::of_model(rest),
            None => match rest {
                "" | "/" => Self::Server,
                "/health/live" => Self::Live,
                "/health/ready" => Self::Ready,
                "/models" => Self::Models,
                _ if rest.starts_with("/paceline/") => Self::Operator,
                _ => Self::Unknown,
            },
        }
    }

    fn of_model(rest: &'a str) -> Self {
        let (model, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let (version, verb) = match rest.strip_prefix("versions/") {
            Some(rest) => {
                let (version, verb) = rest.split_once('/').unwrap_or((rest, ""));
                (Some(version), verb)
            }
            None => (None, rest),
        };
        match verb {
            _ if model.is_empty() || version == Some("") => Self::Unknown,
            "" => Self::Model { model, version },
            "ready" => Self::ModelReady { model, version },
            "infer" => Self::Infer { model, version },
            _ => Self::Unknown,
        }
    }

    /// The one method that the path takes.
    pub(super) fn method(self) -> hyper::Method {
        match self {
            Self::Infer { .. } => hyper::Method::POST,
            _ => hyper::Method::GET,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_apart() {
        let model = "m";
        let cases = [
            ("/v2", Route::Server),
            ("/v2/", Route::Server),
            ("/v2/health/live", Route::Live),
            ("/v2/health/ready", Route::Ready),
            ("/v2/models", Route::Models),
            (
                "/v2/models/m",
                Route::Model {
                    model,
                    version: None,
                },
            ),
            (
                "/v2/models/m/versions/2",
                Route::Model {
                    model,
                    version: Some("2"),
                },
            ),
            (
                "/v2/models/m/ready",
                Route::ModelReady {
                    model,
                    version: None,
                },
            ),
            (
                "/v2/models/m/infer",
                Route::Infer {
                    model,
                    version: None,
                },
            ),
            (
                "/v2/models/m/versions/2/infer",
                Route::Infer {
                    model,
                    version: Some("2"),
                },
            ),
            ("/v2/paceline/status", Route::Operator),
            ("/v2/models/", Route::Unknown),
            ("/v2/models/m/versions/", Route::Unknown),
            ("/v2/models/m/infer/x", Route::Unknown),
            ("/v3", Route::Unknown),
            ("/", Route::Unknown),
        ];
        for (path, route) in cases {
            assert_eq!(Route::of(path), route, "{path}");
        }
    }
}
