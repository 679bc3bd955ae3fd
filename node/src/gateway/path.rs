//! Which paths there are beside the operator API, and which methods they take.

use hyper::Method;

use super::text::Asked;

/// What a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    Live,
    Ready,
    Server,
    Models,
    Model(Target<'a>),
    ModelReady(Target<'a>),
    Infer(Target<'a>),
    /// How a version is configured.
    Configuration(Target<'a>),
    /// What versions have done: all of them, those of a model, or one.
    Statistics(Option<Target<'a>>),
    /// Triton's model repository.
    Repository(Repository<'a>),
    /// Triton's shared memory, of either kind.
    SharedMemory(SharedMemory),
    /// Triton's trace settings, of the server or of a model.
    Trace(Option<&'a str>),
    /// Triton's log settings.
    Logging,
    /// What is asked about texts.
    Text(Asked),
    /// Everything else under `/v1`.
    V1(V1<'a>),
    /// The description of all paths.
    Described,
    /// Everything under `/v2/paceline/`.
    Operator,
    Unknown,
}

/// A model, and the version that the path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub(super) model: &'a str,
    pub(super) version: Option<&'a str>,
}

/// What KServe's protocol v1, TensorFlow Serving and OpenAI's clients ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum V1<'a> {
    Models,
    Model(Target<'a>),
    /// Its signature.
    Metadata(Target<'a>),
    Verb(Target<'a>, Verb),
}

/// What is posted to a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Predict,
    Classify,
    Regress,
    Explain,
}

/// What is asked of the repository; there is one, whatever the path calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repository<'a> {
    Index,
    Load(&'a str),
    Unload(&'a str),
}

/// What is asked of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SharedMemory {
    Status,
    Register,
    Unregister,
}

/// The methods that a path takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Methods {
    Get,
    Post,
    GetAndPost,
}

impl<'a> Route<'a> {
    pub(super) fn of(path: &'a str) -> Self {
        match path {
            "/openapi.json" => return Self::Described,
            "/v1/embeddings" | "/openai/v1/embeddings" => return Self::Text(Asked::Embeddings),
            "/embed" => return Self::Text(Asked::Embed),
            "/rerank" => return Self::Text(Asked::Rerank),
            "/predict" => return Self::Text(Asked::Predict),
            "/tokenize" => return Self::Text(Asked::Tokenize),
            "/info" => return Self::Text(Asked::Info),
            _ => {}
        }
        let Some(rest) = path.strip_prefix("/v2") else {
            return V1::of(path).map_or(Self::Unknown, Self::V1);
        };
        if let Some(rest) = rest.strip_prefix("/models/") {
            return Self::of_models(rest);
        }
        match rest {
            "" | "/" => Self::Server,
            "/health/live" => Self::Live,
            "/health/ready" => Self::Ready,
            "/models" => Self::Models,
            "/trace/setting" => Self::Trace(None),
            "/logging" => Self::Logging,
            _ if rest.starts_with("/paceline/") => Self::Operator,
            _ => Repository::of(rest)
                .map(Self::Repository)
                .or_else(|| SharedMemory::of(rest).map(Self::SharedMemory))
                .unwrap_or(Self::Unknown),
        }
    }

    fn of_models(rest: &'a str) -> Self {
        // As Triton has it; the numbers of a model of this name are asked for by its own path.
        if rest == "stats" {
            return Self::Statistics(None);
        }
        let (model, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let (version, verb) = match rest.strip_prefix("versions/") {
            Some(rest) => {
                let (version, verb) = rest.split_once('/').unwrap_or((rest, ""));
                (Some(version), verb)
            }
            None => (None, rest),
        };
        let target = Target { model, version };
        match verb {
            _ if model.is_empty() || version == Some("") => Self::Unknown,
            "" => Self::Model(target),
            "ready" => Self::ModelReady(target),
            "infer" => Self::Infer(target),
            "config" => Self::Configuration(target),
            "stats" => Self::Statistics(Some(target)),
            "trace/setting" if version.is_none() => Self::Trace(Some(model)),
            _ => Self::Unknown,
        }
    }

    pub(super) fn methods(self) -> Methods {
        match self {
            Self::Text(Asked::Info) => Methods::Get,
            Self::Infer(_)
            | Self::Text(_)
            | Self::V1(V1::Verb(..))
            | Self::Repository(_)
            | Self::SharedMemory(SharedMemory::Register | SharedMemory::Unregister) => {
                Methods::Post
            }
            Self::Trace(_) | Self::Logging => Methods::GetAndPost,
            _ => Methods::Get,
        }
    }
}

impl<'a> V1<'a> {
    fn of(path: &'a str) -> Option<Self> {
        // KServe serves what OpenAI's clients ask for under a prefix of its own.
        let Some(path) = path.strip_prefix("/openai") else {
            return Self::plain(path);
        };
        let listed = Self::plain(path)?;
        let is_openai = match listed {
            Self::Models => true,
            Self::Model(target) => target.version.is_none(),
            Self::Metadata(_) | Self::Verb(..) => false,
        };
        is_openai.then_some(listed)
    }

    fn plain(path: &'a str) -> Option<Self> {
        let rest = path.strip_prefix("/v1/models")?;
        let Some(rest) = rest.strip_prefix('/') else {
            return rest.is_empty().then_some(Self::Models);
        };
        if let Some((rest, verb)) = rest.rsplit_once(':') {
            return Some(Self::Verb(Target::of_v1(rest)?, Verb::of(verb)?));
        }
        match rest.strip_suffix("/metadata") {
            Some(rest) => Target::of_v1(rest).map(Self::Metadata),
            None => Target::of_v1(rest).map(Self::Model),
        }
    }
}

impl<'a> Target<'a> {
    /// `MODEL`, `MODEL/versions/VERSION` or `MODEL/labels/LABEL`.
    fn of_v1(rest: &'a str) -> Option<Self> {
        let (model, version) = match rest.split_once('/') {
            None => (rest, None),
            Some((model, rest)) => {
                let version = rest.strip_prefix("versions/");
                let version = version.or_else(|| rest.strip_prefix("labels/"))?;
                (model, Some(version))
            }
        };
        let is_whole = |part: &str| !part.is_empty() && !part.contains('/');
        (is_whole(model) && version.is_none_or(is_whole)).then_some(Self { model, version })
    }
}

impl Verb {
    fn of(name: &str) -> Option<Self> {
        let all = [Self::Predict, Self::Classify, Self::Regress, Self::Explain];
        all.into_iter().find(|verb| verb.name() == name)
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Predict => "predict",
            Self::Classify => "classify",
            Self::Regress => "regress",
            Self::Explain => "explain",
        }
    }
}

impl<'a> Repository<'a> {
    fn of(rest: &'a str) -> Option<Self> {
        let rest = rest.strip_prefix("/repository/")?;
        let command = |rest: &'a str| {
            if rest == "index" {
                return Some(Self::Index);
            }
            let (model, verb) = rest.strip_prefix("models/")?.split_once('/')?;
            match verb {
                _ if model.is_empty() => None,
                "load" => Some(Self::Load(model)),
                "unload" => Some(Self::Unload(model)),
                _ => None,
            }
        };
        command(rest).or_else(|| command(rest.split_once('/')?.1))
    }
}

impl SharedMemory {
    fn of(rest: &str) -> Option<Self> {
        let kinds = ["/systemsharedmemory/", "/cudasharedmemory/"];
        let rest = kinds.iter().find_map(|kind| rest.strip_prefix(kind))?;
        let (region, verb) = match rest.strip_prefix("region/") {
            Some(rest) => {
                let (region, verb) = rest.split_once('/')?;
                (Some(region), verb)
            }
            None => (None, rest),
        };
        match verb {
            _ if region == Some("") => None,
            "status" => Some(Self::Status),
            "register" if region.is_some() => Some(Self::Register),
            "unregister" => Some(Self::Unregister),
            _ => None,
        }
    }
}

impl Methods {
    pub(super) fn include(self, method: &Method) -> bool {
        let get = *method == Method::GET || *method == Method::HEAD;
        let post = *method == Method::POST;
        match self {
            Self::Get => get,
            Self::Post => post,
            Self::GetAndPost => get || post,
        }
    }

    /// As the header `Allow` has it.
    pub(super) const fn allow(self) -> &'static str {
        match self {
            Self::Get => "GET,HEAD",
            Self::Post => "POST",
            Self::GetAndPost => "GET,HEAD,POST",
        }
    }

    /// As a sentence has it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::GetAndPost => "GET and POST",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: Target<'static> = Target {
        model: "m",
        version: None,
    };
    const M2: Target<'static> = Target {
        model: "m",
        version: Some("2"),
    };

    #[test]
    fn paths_are_told_apart() {
        let cases = [
            ("/v2", Route::Server),
            ("/v2/", Route::Server),
            ("/v2/health/live", Route::Live),
            ("/v2/health/ready", Route::Ready),
            ("/v2/models", Route::Models),
            ("/v2/models/m", Route::Model(M)),
            ("/v2/models/m/versions/2", Route::Model(M2)),
            ("/v2/models/m/ready", Route::ModelReady(M)),
            ("/v2/models/m/infer", Route::Infer(M)),
            ("/v2/models/m/versions/2/infer", Route::Infer(M2)),
            ("/v2/models/m/config", Route::Configuration(M)),
            ("/v2/models/m/versions/2/config", Route::Configuration(M2)),
            ("/v2/models/stats", Route::Statistics(None)),
            ("/v2/models/m/stats", Route::Statistics(Some(M))),
            ("/v2/models/m/versions/2/stats", Route::Statistics(Some(M2))),
            ("/v2/trace/setting", Route::Trace(None)),
            ("/v2/models/m/trace/setting", Route::Trace(Some("m"))),
            ("/v2/models/m/versions/2/trace/setting", Route::Unknown),
            ("/v2/logging", Route::Logging),
            ("/openapi.json", Route::Described),
            ("/v1/embeddings", Route::Text(Asked::Embeddings)),
            ("/openai/v1/embeddings", Route::Text(Asked::Embeddings)),
            ("/embed", Route::Text(Asked::Embed)),
            ("/rerank", Route::Text(Asked::Rerank)),
            ("/predict", Route::Text(Asked::Predict)),
            ("/tokenize", Route::Text(Asked::Tokenize)),
            ("/info", Route::Text(Asked::Info)),
            ("/openai/embed", Route::Unknown),
            ("/v2/paceline/status", Route::Operator),
            ("/v2/models/", Route::Unknown),
            ("/v2/models/m/versions/", Route::Unknown),
            ("/v2/models/m/infer/x", Route::Unknown),
            ("/v2/models/m/configs", Route::Unknown),
            ("/v3", Route::Unknown),
            ("/", Route::Unknown),
        ];
        for (path, route) in cases {
            assert_eq!(Route::of(path), route, "{path}");
        }
    }

    #[test]
    fn a_prediction_names_a_version_or_a_label() {
        let predict = |target| Some(V1::Verb(target, Verb::Predict));
        let cases = [
            ("/v1/models", Some(V1::Models)),
            ("/openai/v1/models", Some(V1::Models)),
            ("/v1/models/m", Some(V1::Model(M))),
            ("/openai/v1/models/m", Some(V1::Model(M))),
            ("/v1/models/m/versions/2", Some(V1::Model(M2))),
            ("/v1/models/m/metadata", Some(V1::Metadata(M))),
            ("/v1/models/m/labels/2/metadata", Some(V1::Metadata(M2))),
            ("/v1/models/m:predict", predict(M)),
            ("/v1/models/m/versions/2:predict", predict(M2)),
            ("/v1/models/m/labels/2:predict", predict(M2)),
            ("/v1/models/m:explain", Some(V1::Verb(M, Verb::Explain))),
            ("/v1/models/m:guess", None),
            ("/v1/models/:predict", None),
            ("/v1/models/m/versions/:predict", None),
            ("/v1/models/m/versions/2/x", None),
            ("/v1/models/", None),
            ("/v1/modelsx", None),
            ("/openai/v1/models/m:predict", None),
            ("/openai/v1/models/m/versions/2", None),
            ("/v1", None),
        ];
        for (path, asked) in cases {
            let route = asked.map_or(Route::Unknown, Route::V1);
            assert_eq!(Route::of(path), route, "{path}");
        }
    }

    #[test]
    fn the_repository_has_any_name_or_none() {
        let cases = [
            ("/v2/repository/index", Some(Repository::Index)),
            ("/v2/repository/r/index", Some(Repository::Index)),
            ("/v2/repository/models/m/load", Some(Repository::Load("m"))),
            (
                "/v2/repository/r/models/m/unload",
                Some(Repository::Unload("m")),
            ),
            (
                "/v2/repository/models/m/unload",
                Some(Repository::Unload("m")),
            ),
            ("/v2/repository/models//load", None),
            ("/v2/repository/models/m", None),
            ("/v2/repository/r/s/index", None),
            ("/v2/repository", None),
        ];
        for (path, command) in cases {
            let route = command.map_or(Route::Unknown, Route::Repository);
            assert_eq!(Route::of(path), route, "{path}");
        }
    }

    #[test]
    fn shared_memory_is_of_two_kinds() {
        for kind in ["systemsharedmemory", "cudasharedmemory"] {
            let cases = [
                ("status", Some(SharedMemory::Status)),
                ("region/r/status", Some(SharedMemory::Status)),
                ("region/r/register", Some(SharedMemory::Register)),
                ("unregister", Some(SharedMemory::Unregister)),
                ("region/r/unregister", Some(SharedMemory::Unregister)),
                ("register", None),
                ("region//status", None),
                ("region/r", None),
            ];
            for (verb, asked) in cases {
                let path = format!("/v2/{kind}/{verb}");
                let route = asked.map_or(Route::Unknown, Route::SharedMemory);
                assert_eq!(Route::of(&path), route, "{path}");
            }
        }
    }

    #[test]
    fn one_prefix_is_taken_off_and_no_more() {
        assert_eq!(Route::of("/openai/v1/models"), Route::V1(V1::Models));
        let many = format!("{}/v1/models", "/openai".repeat(9_000));
        assert_eq!(Route::of(&many), Route::Unknown);
    }

    #[test]
    fn what_changes_something_is_posted() {
        let methods = |path| Route::of(path).methods();
        assert_eq!(methods("/v2/models/m/infer"), Methods::Post);
        assert_eq!(methods("/v2/repository/index"), Methods::Post);
        assert_eq!(methods("/v2/systemsharedmemory/unregister"), Methods::Post);
        assert_eq!(methods("/v2/systemsharedmemory/status"), Methods::Get);
        assert_eq!(methods("/v2/logging"), Methods::GetAndPost);
        assert!(Methods::Get.include(&Method::HEAD) && !Methods::Post.include(&Method::HEAD));
        assert!(Methods::GetAndPost.include(&Method::POST));
    }
}
