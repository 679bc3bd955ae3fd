//! Trace and log settings as messages of gRPC: the same that HTTP writes as JSON.

use tracing::level_filters::LevelFilter;

use super::proto::inference::log_settings_response::SettingValue as LogValue;
use super::proto::inference::log_settings_response::setting_value::ParameterChoice;
use super::proto::inference::trace_setting_response::SettingValue as TraceValue;
use super::proto::inference::{LogSettingsResponse, TraceSettingResponse};
use crate::gateway::settings::{LogSetting, TRACE, logging};

/// How requests are traced.
pub(super) fn trace() -> TraceSettingResponse {
    let settings = TRACE.map(|(name, value)| {
        let value = vec![value.to_owned()];
        (name.to_owned(), TraceValue { value })
    });
    TraceSettingResponse {
        settings: settings.into(),
    }
}

/// What is logged at such a level.
pub(super) fn log(level: LevelFilter) -> LogSettingsResponse {
    let settings = logging(level).map(|(name, value)| {
        let choice = match value {
            LogSetting::Switch(is_on) => ParameterChoice::BoolParam(is_on),
            LogSetting::Level(level) => ParameterChoice::Uint32Param(level),
            LogSetting::Text(text) => ParameterChoice::StringParam(text.to_owned()),
        };
        let parameter_choice = Some(choice);
        (name.to_owned(), LogValue { parameter_choice })
    });
    LogSettingsResponse {
        settings: settings.into(),
    }
}
