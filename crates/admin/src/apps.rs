//! Applications with processes of their own, which a router serves: what their admin addresses tell stands with the router's
//! own figures, and says whose it is. One of them may have been broken into, so only what has its form is taken.

use std::collections::HashMap;
use std::fmt::Write;

use anygate_config::WorkerStage;
use anygate_policy::metrics::{FAMILIES, Family};
use anygate_policy::metrics_text;
use serde_json::{Value, json};

const STAGES: [WorkerStage; 3] = [WorkerStage::Starting, WorkerStage::Serving, WorkerStage::Draining];

/// What an application told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppReport {
    /// Its name.
    pub app: String,
    /// A body, unless it did not respond or refused.
    pub body: Option<String>,
}

/// Adds the metrics of applications to those of their router, each under its family.
pub(crate) fn with_metrics(own: &str, apps: &[AppReport]) -> String {
    let mut samples: HashMap<&str, String> = HashMap::new();
    for told in apps {
        for line in told.body.iter().flat_map(|body| body.lines()) {
            if let Some((family, line)) = labelled(line, &told.app) {
                samples.entry(family.name).or_default().push_str(&line);
            }
        }
    }
    let mut text = String::with_capacity(own.len() * (apps.len() + 1));
    let mut family = "";
    for line in own.lines() {
        if let Some(help) = line.strip_prefix("# HELP anygate_") {
            text.push_str(&samples.remove(family).unwrap_or_default());
            family = help.split(' ').next().unwrap_or_default();
        }
        text.push_str(line);
        text.push('\n');
    }
    text.push_str(&samples.remove(family).unwrap_or_default());
    // What only applications have.
    for family in FAMILIES {
        if let Some(samples) = samples.remove(family.name) {
            text.push_str(&metrics_text::head(family));
            text.push_str(&samples);
        }
    }
    text.push_str("# HELP anygate_app_up Whether the application responds.\n# TYPE anygate_app_up gauge\n");
    for told in apps {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "anygate_app_up{{app=\"{}\"}} {}", told.app, u8::from(told.body.is_some()));
    }
    text
}

/// The family of a sample, and its line with a label for the application.
fn labelled(line: &str, app: &str) -> Option<(&'static Family, String)> {
    let (sample, value) = line.rsplit_once(' ')?;
    value.parse::<f64>().ok()?;
    let (name, labels) = match sample.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (sample, ""),
    };
    let plain = name.strip_prefix("anygate_")?;
    let family = FAMILIES.iter().find(|family| metrics_text::has_samples(family, plain))?;
    let comma = if labels.is_empty() { "" } else { "," };
    are_labels(labels).then(|| (family, format!("{name}{{app=\"{app}\"{comma}{labels}}} {value}\n")))
}

/// Whether a text is `name="value"`, several with commas, none of them twice or `app`.
fn are_labels(mut text: &str) -> bool {
    let mut names = vec!["app"];
    while !text.is_empty() {
        let Some((name, rest)) = text.split_once("=\"") else { return false };
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let mut is_escaped = false;
        let end = rest.bytes().position(|byte| {
            let is_end = byte == b'"' && !is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            is_end
        });
        let Some((_, rest)) = end.and_then(|end| rest.split_at_checked(end + 1)) else { return false };
        if !is_name || names.contains(&name) {
            return false;
        }
        names.push(name);
        text = match rest.strip_prefix(',') {
            Some(more) if !more.is_empty() => more,
            None if rest.is_empty() => "",
            _ => return false,
        };
    }
    true
}

/// Adds the workers of applications to a status, as `apps`.
pub(crate) fn add_to(status: &mut Value, apps: &[AppReport]) {
    if apps.is_empty() {
        return;
    }
    let app = |told: &AppReport| {
        let status: Option<Value> = told.body.as_ref().and_then(|body| serde_json::from_str(body).ok());
        let workers = status.as_ref().and_then(|status| status.get("workers")?.as_array());
        let workers: Vec<Value> = workers.into_iter().flatten().filter_map(worker).collect();
        json!({ "app": told.app, "up": status.is_some(), "workers": workers })
    };
    status["apps"] = apps.iter().map(app).collect();
}

/// A worker as an application tells of it.
fn worker(told: &Value) -> Option<Value> {
    let number = |name: &str| told.get(name)?.as_u64();
    let stage = told.get("stage")?.as_str()?;
    let in_flight = told.get("in_flight")?.as_array()?.len();
    STAGES.iter().find(|known| known.word() == stage)?;
    Some(json!({
        "pid": number("pid")?,
        "age": told.get("age")?.as_f64()?,
        "stage": stage,
        "memory_bytes": number("memory_bytes")?,
        "requests": number("requests")?,
        "in_flight": in_flight,
    }))
}

/// Stacks of workers as applications tell them.
pub(crate) fn stacks(apps: &[AppReport]) -> Vec<Value> {
    let of = |told: &AppReport| {
        let body: Value = serde_json::from_str(told.body.as_deref()?).ok()?;
        let workers = body.get("workers")?.as_array()?.iter().filter_map(|worker| {
            let (pid, stacks) = (worker.get("pid")?.as_u64()?, worker.get("stacks")?.as_str()?);
            Some(json!({ "pid": pid, "stacks": stacks }))
        });
        Some(workers.collect::<Vec<Value>>())
    };
    apps.iter().filter_map(of).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(app: &str, body: &str) -> AppReport {
        AppReport { app: app.to_owned(), body: (!body.is_empty()).then(|| body.to_owned()) }
    }

    #[test]
    fn samples_of_applications_stand_in_their_family_with_a_label() {
        let own = "# HELP anygate_workers Workers.\n# TYPE anygate_workers gauge\nanygate_workers 1\n\
                   # HELP anygate_websockets Open.\n# TYPE anygate_websockets gauge\nanygate_websockets 0\n";
        let shop = "# HELP anygate_workers Workers.\nanygate_workers 4\n\
                    anygate_route_requests_total{route=\"/a\\\"}\",status=\"2xx\"} 3\n";
        let text = with_metrics(own, &[told("shop", shop), told("blog", "")]);
        let expected = "# HELP anygate_workers Workers.\n# TYPE anygate_workers gauge\nanygate_workers 1\n\
                        anygate_workers{app=\"shop\"} 4\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(
            text.contains(
                "# TYPE anygate_route_requests_total counter\n\
                 anygate_route_requests_total{app=\"shop\",route=\"/a\\\"}\",status=\"2xx\"} 3\n"
            ),
            "{text}"
        );
        assert!(text.ends_with("anygate_app_up{app=\"shop\"} 1\nanygate_app_up{app=\"blog\"} 0\n"), "{text}");
    }

    #[test]
    fn what_has_not_the_form_of_a_sample_is_left_out() {
        let form = "anygate_request_duration_seconds_bucket{le=\"+Inf\"} 7";
        let (family, line) = labelled(form, "a").unwrap();
        assert_eq!(family.name, "request_duration_seconds");
        assert_eq!(line, "anygate_request_duration_seconds_bucket{app=\"a\",le=\"+Inf\"} 7\n");
        for line in [
            "",
            "# TYPE anygate_workers counter",
            "anygate_workers",
            "anygate_workers x",
            "other_workers 1",
            "anygate_unknown 1",
            "anygate_workers_bucket 1",
            "anygate_workers{app=\"b\"} 1",
            "anygate_workers{a=\"b\",a=\"c\"} 1",
            "anygate_workers{a=\"b\",} 1",
            "anygate_workers{a=\"b\"c=\"d\"} 1",
            "anygate_workers{a=\"b} 1",
            "anygate_workers{a=\"b\\\"} 1",
            "anygate_workers{a} 1",
            "anygate_workers{A=\"b\"} 1",
            "anygate_workers{a=\"b\" 1",
        ] {
            assert!(labelled(line, "a").is_none(), "{line}");
        }
    }

    #[test]
    fn workers_of_applications_are_taken_if_they_have_their_form() {
        let good = json!({ "pid": 7, "age": 1.5, "stage": "serving", "memory_bytes": 8, "requests": 9,
            "in_flight": [{}], "more": [] });
        let with = |name: &str, value: Value| {
            let mut bad = good.clone();
            bad[name] = value;
            bad
        };
        let bad =
            [with("pid", json!("7")), with("stage", json!("<b>")), with("in_flight", json!(1)), json!(7)];
        let workers: Vec<&Value> = std::iter::once(&good).chain(&bad).collect();
        let body = json!({ "workers": workers }).to_string();
        let mut status = json!({});
        add_to(&mut status, &[]);
        assert_eq!(status, json!({}));
        add_to(&mut status, &[told("shop", &body), told("blog", ""), told("rest", "no JSON")]);
        let worker = json!({ "pid": 7, "age": 1.5, "stage": "serving", "memory_bytes": 8, "requests": 9, "in_flight": 1 });
        let app = |name: &str, up: bool, workers: Value| json!({ "app": name, "up": up, "workers": workers });
        let expected = [
            app("shop", true, json!([worker])),
            app("blog", false, json!([])),
            app("rest", false, json!([])),
        ];
        assert_eq!(status["apps"], json!(expected));
    }

    #[test]
    fn stacks_are_taken_if_they_are_text() {
        let body = json!({ "workers": [{ "pid": 7, "stacks": "Thread" }, { "pid": 8, "stacks": 8 }, 9] });
        let all = stacks(&[told("a", &body.to_string()), told("b", ""), told("c", "x")]);
        assert_eq!(all, [json!({ "pid": 7, "stacks": "Thread" })]);
    }
}
