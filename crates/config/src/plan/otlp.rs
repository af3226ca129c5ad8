//! Where spans and metrics are sent: the option `otlp` says that they are, and the variables of OpenTelemetry how
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>,
//! <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>).
//!
//! A variable that cannot be understood is ignored with a warning, as its specification demands: it may be meant for another
//! program that inherits it, such as the instrumentation of the application.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::check::Reader;
use crate::invalid::Invalid;
use crate::options;
use crate::settings::{Settings, Wrong};

const ENDPOINT: &str = "http://localhost:4318";
const TIMEOUT: Duration = Duration::from_secs(10);
const METRICS_INTERVAL: Duration = Duration::from_secs(60);
/// Parts of all requests are counted in so many.
const WHOLE: f64 = 18_446_744_073_709_551_616.0;

/// What is sent to a collector, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpPlan {
    /// Where spans are sent; `None` if none are.
    pub traces: Option<Endpoint>,
    /// Where metrics are sent; `None` if none are.
    pub metrics: Option<Endpoint>,
    /// Time between two transmissions of metrics.
    pub metrics_interval: Duration,
    /// Which requests get a span.
    pub sampler: SamplerPlan,
    /// What is said of this server, by name; `service.name` is among it.
    pub resource: BTreeMap<String, String>,
    /// Variables that were ignored, and why.
    pub warnings: Vec<String>,
}

/// Where one kind of data is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its whole address.
    pub url: String,
    /// Fields to add.
    pub headers: Vec<(String, String)>,
    /// How long a transmission may take.
    pub timeout: Duration,
    /// Whether it is compressed with gzip.
    pub gzip: bool,
    /// File with the certificates to trust in place of the system's.
    pub certificate: Option<PathBuf>,
}

/// Which requests get a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SamplerPlan {
    /// Whether the caller of a request decides, if it says so.
    pub is_parent_based: bool,
    /// Of 2^64 requests, how many get one.
    pub share: u128,
}

impl OtlpPlan {
    pub(super) fn check(read: &Reader<'_>) -> Result<Option<OtlpPlan>, Wrong> {
        let base = |text: &str| match text {
            "auto" => Ok(None),
            url if is_url(url) => Ok(Some(url.trim_end_matches('/').to_owned())),
            _ => Err(Invalid::Form("must be http://host:port, https://host:port or auto")),
        };
        let Some(base) = read.one(options::OTLP, base)? else { return Ok(None) };
        let mut variables = Variables { settings: read.settings, warnings: Vec::new() };
        if variables.flag("OTEL_SDK_DISABLED") {
            return Ok(None);
        }
        let mut endpoint = |signal: Signal| {
            let exporter = variables.text(&format!("OTEL_{}_EXPORTER", signal.name()));
            if exporter.is_some_and(|exporters| exporters.split(',').any(|name| name.trim() == "none")) {
                return Ok(None);
            }
            if base.is_none()
                && let Some((name, protocol)) = variables.of(signal, "PROTOCOL")
                && protocol != "http/protobuf"
            {
                let reason = format!(
                    "{name} is {protocol:?}, and only http/protobuf is spoken: name the collector's address for it"
                );
                return Err(read.wrong(options::OTLP, &reason));
            }
            Ok(Some(variables.endpoint(signal, base.as_deref())))
        };
        let (traces, metrics) = (endpoint(Signal::Traces)?, endpoint(Signal::Metrics)?);
        let (sampler, resource) = (variables.sampler(), variables.resource());
        let metrics_interval = variables.millis("OTEL_METRIC_EXPORT_INTERVAL").unwrap_or(METRICS_INTERVAL);
        let warnings = variables.warnings;
        Ok(Some(OtlpPlan { traces, metrics, metrics_interval, sampler, resource, warnings }))
    }
}

/// A kind of data.
#[derive(Clone, Copy)]
enum Signal {
    Traces,
    Metrics,
}

impl Signal {
    /// As in variables.
    fn name(self) -> &'static str {
        match self {
            Signal::Traces => "TRACES",
            Signal::Metrics => "METRICS",
        }
    }

    /// As in addresses.
    fn path(self) -> &'static str {
        match self {
            Signal::Traces => "/v1/traces",
            Signal::Metrics => "/v1/metrics",
        }
    }
}

/// The variables of OpenTelemetry.
struct Variables<'a> {
    settings: &'a Settings,
    warnings: Vec<String>,
}

impl<'a> Variables<'a> {
    fn text(&self, name: &str) -> Option<&'a str> {
        self.settings.variable(name)
    }

    /// The name and value of a variable of the exporter: that of the signal, else that of all.
    fn of(&self, signal: Signal, what: &str) -> Option<(String, &'a str)> {
        let names =
            [format!("OTEL_EXPORTER_OTLP_{}_{what}", signal.name()), format!("OTEL_EXPORTER_OTLP_{what}")];
        names.into_iter().find_map(|name| self.text(&name).map(|value| (name, value)))
    }

    fn ignore(&mut self, name: &str, reason: &str) {
        let value = self.text(name).unwrap_or_default();
        self.warn(format!("the environment variable {name}={value:?} is ignored: {reason}"));
    }

    /// Two kinds of data may have the same variable.
    fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    fn flag(&mut self, name: &str) -> bool {
        match self.text(name) {
            Some(text) if text.eq_ignore_ascii_case("true") => true,
            Some(text) if !text.eq_ignore_ascii_case("false") => {
                self.ignore(name, "it must be true or false");
                false
            }
            _ => false,
        }
    }

    fn millis(&mut self, name: &str) -> Option<Duration> {
        match self.text(name)?.parse::<u32>() {
            Ok(millis) if millis > 0 => Some(Duration::from_millis(millis.into())),
            _ => {
                self.ignore(name, "it must be a number of milliseconds");
                None
            }
        }
    }

    /// `base`: what the option says.
    fn endpoint(&mut self, signal: Signal, base: Option<&str>) -> Endpoint {
        let named = match base {
            Some(base) => Some(format!("{base}{}", signal.path())),
            None => self.url(signal),
        };
        let timeout = self.of(signal, "TIMEOUT").and_then(|(name, _)| self.millis(&name));
        let gzip = match self.of(signal, "COMPRESSION") {
            Some((_, "gzip")) => true,
            Some((name, value)) if value != "none" => {
                self.ignore(&name, "it must be gzip or none");
                false
            }
            _ => false,
        };
        Endpoint {
            url: named.unwrap_or_else(|| format!("{ENDPOINT}{}", signal.path())),
            headers: self.headers(signal),
            timeout: timeout.unwrap_or(TIMEOUT),
            gzip,
            certificate: self.of(signal, "CERTIFICATE").map(|(_, path)| path.into()),
        }
    }

    /// The address in the variables: that of the signal as it is, that of all as the beginning of it.
    fn url(&mut self, signal: Signal) -> Option<String> {
        let (name, url) = self.of(signal, "ENDPOINT")?;
        if !is_url(url) {
            self.ignore(&name, "it must begin with http:// or https://");
            return None;
        }
        let is_whole = name.contains(signal.name());
        Some(if is_whole {
            url.to_owned()
        } else {
            format!("{}{}", url.trim_end_matches('/'), signal.path())
        })
    }

    fn headers(&mut self, signal: Signal) -> Vec<(String, String)> {
        let Some((name, text)) = self.of(signal, "HEADERS") else { return Vec::new() };
        let pairs = pairs(text);
        let is_field = |(name, value): &(String, String)| {
            let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            !name.is_empty()
                && name.bytes().all(is_token)
                && !value.bytes().any(|byte| byte.is_ascii_control())
        };
        match pairs.filter(|pairs| pairs.iter().all(is_field)) {
            Some(pairs) => pairs,
            None => {
                // Its value may be a secret.
                self.warn(format!("the environment variable {name} is ignored: it must be name=value,..."));
                Vec::new()
            }
        }
    }

    fn sampler(&mut self) -> SamplerPlan {
        const NAME: &str = "OTEL_TRACES_SAMPLER";
        let all = 1 << 64;
        let (is_parent_based, sampler) = match self.text(NAME) {
            None => (true, "always_on"),
            Some(text) => match text.strip_prefix("parentbased_") {
                Some(root) => (true, root),
                None => (false, text),
            },
        };
        let share = match sampler {
            "always_on" => all,
            "always_off" => 0,
            "traceidratio" => self.ratio(),
            _ => {
                self.ignore(NAME, "requests are sampled as with parentbased_always_on");
                return SamplerPlan { is_parent_based: true, share: all };
            }
        };
        SamplerPlan { is_parent_based, share }
    }

    fn ratio(&mut self) -> u128 {
        const NAME: &str = "OTEL_TRACES_SAMPLER_ARG";
        let ratio = match self.text(NAME).map(str::parse::<f64>) {
            None => 1.0,
            Some(Ok(ratio)) if (0.0..=1.0).contains(&ratio) => ratio,
            Some(_) => {
                self.ignore(NAME, "it must be a number from 0 to 1");
                1.0
            }
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 0 to 2^64")]
        let share = (ratio * WHOLE).round() as u128;
        share
    }

    fn resource(&mut self) -> BTreeMap<String, String> {
        const NAME: &str = "OTEL_RESOURCE_ATTRIBUTES";
        let mut resource =
            BTreeMap::from([("service.name".to_owned(), "unknown_service:anygate".to_owned())]);
        match self.text(NAME).map(pairs) {
            Some(Some(pairs)) => resource.extend(pairs),
            Some(None) => self.ignore(NAME, "it must be name=value,..."),
            None => {}
        }
        if let Some(name) = self.text("OTEL_SERVICE_NAME") {
            resource.insert("service.name".to_owned(), name.to_owned());
        }
        resource
    }
}

fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| {
        !rest.is_empty() && !rest.starts_with(['/', ':']) && rest.bytes().all(|byte| byte.is_ascii_graphic())
    })
}

/// Reads `name=value,...` as in the field Baggage: blanks around names and values, which are percent-encoded.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        Some((decoded(name)?, decoded(value)?)).filter(|(name, _)| !name.is_empty())
    };
    text.split(',').filter(|part| !part.trim().is_empty()).map(pair).collect()
}

fn decoded(text: &str) -> Option<String> {
    percent_decode_str(text.trim()).decode_utf8().ok().map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{Origin, Plan};

    fn plan(otlp: &str, variables: &[(&str, &str)]) -> Result<Option<OtlpPlan>, String> {
        let mut settings = Settings::default();
        settings.keep_variables(variables.iter().map(|(name, value)| (name.into(), value.into())));
        settings.set_json("otlp", &otlp.into(), Origin::Argument).unwrap();
        let plan = Plan::check(&settings, Path::new("/run"));
        plan.map(|plan| plan.admin.otlp).map_err(|wrong| wrong.to_string())
    }

    fn urls(otlp: &str, variables: &[(&str, &str)]) -> [String; 2] {
        let plan = plan(otlp, variables).unwrap().unwrap();
        [plan.traces, plan.metrics].map(|endpoint| endpoint.map(|endpoint| endpoint.url).unwrap_or_default())
    }

    #[test]
    fn the_option_turns_it_on_and_names_the_collector() {
        let general = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://b:1/x/");
        let of_traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://c/y");
        assert_eq!(plan("", &[general]), Ok(None));
        for (otlp, variables, traces, metrics) in [
            ("auto", &[][..], "http://localhost:4318/v1/traces", "http://localhost:4318/v1/metrics"),
            ("auto", &[general], "http://b:1/x/v1/traces", "http://b:1/x/v1/metrics"),
            ("auto", &[general, of_traces], "https://c/y", "http://b:1/x/v1/metrics"),
            ("http://a:2/", &[general, of_traces], "http://a:2/v1/traces", "http://a:2/v1/metrics"),
            ("http://a", &[("OTEL_METRICS_EXPORTER", "none")], "http://a/v1/traces", ""),
        ] {
            assert_eq!(urls(otlp, variables), [traces, metrics], "{otlp} {variables:?}");
        }
        assert_eq!(plan("auto", &[("OTEL_SDK_DISABLED", "True")]), Ok(None));
        for wrong in ["collector:4318", "http://", "grpc://a", "http://a b", "http:///x"] {
            assert!(plan(wrong, &[]).unwrap_err().contains("must be http://"), "{wrong}");
        }
        let grpc = [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
        assert!(plan("auto", &grpc).unwrap_err().contains("only http/protobuf is spoken"));
        assert!(plan("http://a", &grpc).is_ok());
    }

    #[test]
    fn variables_say_how_it_is_sent() {
        let plan = plan(
            "http://a",
            &[
                ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b, x=1"),
                ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x=2"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
                ("OTEL_RESOURCE_ATTRIBUTES", "service.name=x,region=a%2Cb"),
                ("OTEL_SERVICE_NAME", "shop"),
                ("OTEL_TRACES_SAMPLER", "traceidratio"),
                ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
                ("OTEL_METRIC_EXPORT_INTERVAL", "500"),
            ],
        );
        let plan = plan.unwrap().unwrap();
        let (traces, metrics) = (plan.traces.unwrap(), plan.metrics.unwrap());
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(traces.headers, [field("x", "2")]);
        assert_eq!(metrics.headers, [field("api-key", "a b"), field("x", "1")]);
        assert_eq!((metrics.timeout.as_millis(), metrics.gzip), (2500, true));
        assert_eq!(metrics.certificate, Some("/ca.pem".into()));
        assert_eq!(plan.metrics_interval.as_millis(), 500);
        let resource: Vec<_> =
            plan.resource.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(resource, [("region", "a,b"), ("service.name", "shop")]);
        assert_eq!(plan.sampler, SamplerPlan { is_parent_based: false, share: 1 << 62 });
        assert!(plan.warnings.is_empty());
    }

    #[test]
    fn samplers_have_their_names() {
        for (sampler, is_parent_based, share) in [
            ("always_on", false, 1 << 64),
            ("always_off", false, 0),
            ("traceidratio", false, 1 << 64),
            ("parentbased_always_on", true, 1 << 64),
            ("parentbased_always_off", true, 0),
            ("jaeger_remote", true, 1 << 64),
        ] {
            let plan = plan("http://a", &[("OTEL_TRACES_SAMPLER", sampler)]).unwrap().unwrap();
            assert_eq!(plan.sampler, SamplerPlan { is_parent_based, share }, "{sampler}");
            assert_eq!(plan.warnings.len(), usize::from(sampler == "jaeger_remote"));
        }
    }

    #[test]
    fn a_variable_that_cannot_be_understood_is_ignored_and_told_without_secrets() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a b=secret"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=%0asecret"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            ("OTEL_RESOURCE_ATTRIBUTES", "shop"),
            ("OTEL_SDK_DISABLED", "1"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
        ] {
            let plan = plan("auto", &[(name, value)]).unwrap().unwrap();
            assert_eq!(plan.warnings.len(), 1, "{name}");
            assert!(plan.warnings[0].contains(name) && !plan.warnings[0].contains("secret"), "{name}");
        }
    }
}
