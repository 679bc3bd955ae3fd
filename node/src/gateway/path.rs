//! Which paths there are beside the operator API, and which methods they take.

use hyper::Method;

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
        let Some(rest) = path.strip_prefix("/v2") else {
            return Self::Unknown;
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
            Self::Infer(_)
            | Self::Repository(_)
            | Self::SharedMemory(SharedMemory::Register | SharedMemory::Unregister) => {
                Methods::Post
            }
            Self::Trace(_) | Self::Logging => Methods::GetAndPost,
            _ => Methods::Get,
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
