//! All metrics as text: as Prometheus reads it (<https://prometheus.io/docs/instrumenting/exposition_formats/>), and as a table
//! for the documentation.

use std::fmt::Write;

use crate::metrics::{
    ADDRESSES_MAX, BOUNDS, Counts, FAMILIES, Family, Kind, Pair, Resource, Sample, Totals, owned, pairs,
    seconds, width,
};

impl Totals {
    /// Returns the metrics in Prometheus' text format 0.0.4. `workers`: their numbers, from 1 on, and rows.
    pub fn prometheus(&self, workers: &[(usize, Counts<'_>)]) -> String {
        let mut text = String::with_capacity(16 * 1024);
        for (at, family) in self.families() {
            let name = family.name;
            text.push_str(&head(family));
            match family.kind {
                Kind::Counter(labels) | Kind::Gauge(labels) => {
                    for cell in 0..width(&family.kind) {
                        let value = self.get(at + cell);
                        let labels = braced(&owned(pairs(labels, cell)));
                        let _ = writeln!(text, "anygate_{name}{labels} {value}");
                    }
                }
                Kind::Histogram => self.histogram(&mut text, name, &[], at),
                Kind::RouteCounter(_) => {
                    for Sample { labels, cell, .. } in self.route_samples(family) {
                        let _ = writeln!(text, "anygate_{name}{} {}", braced(&labels), self.get(cell));
                    }
                }
                Kind::RouteHistogram => {
                    for Sample { labels, cell, .. } in self.route_samples(family) {
                        self.histogram(&mut text, name, &labels, cell);
                    }
                }
                Kind::Resource(resource) => {
                    for (number, counts) in workers {
                        let value = resource.shown(counts.get(at));
                        let _ = writeln!(text, "anygate_{name}{{worker=\"{number}\"}} {value}");
                    }
                }
                Kind::Address => {
                    for (cell, address) in (at..at + ADDRESSES_MAX).zip(&self.addresses) {
                        let labels = braced(&[("address", address.clone().into())]);
                        let _ = writeln!(text, "anygate_{name}{labels} {}", self.get(cell));
                    }
                }
            }
        }
        text
    }

    fn histogram(&self, text: &mut String, name: &str, labels: &[Pair], at: usize) {
        let mut count = 0;
        let bounds = BOUNDS.iter().map(|bound| seconds(*bound)).chain(["+Inf".to_owned()]);
        for (place, bound) in bounds.enumerate() {
            count += self.get(at + place);
            let labels = [labels, &[("le", bound.into())]].concat();
            let _ = writeln!(text, "anygate_{name}_bucket{} {count}", braced(&labels));
        }
        let (labels, sum) = (braced(labels), seconds(self.micros(at)));
        let _ = writeln!(text, "anygate_{name}_sum{labels} {sum}\nanygate_{name}_count{labels} {count}");
    }
}

/// What stands before the samples of a metric.
pub fn head(family: &Family) -> String {
    let Family { name, kind, help } = family;
    let kind = match kind {
        Kind::Counter(_) | Kind::RouteCounter(_) | Kind::Resource(Resource::Time) => "counter",
        Kind::Gauge(_) | Kind::Address | Kind::Resource(Resource::Amount) => "gauge",
        Kind::Histogram | Kind::RouteHistogram => "histogram",
    };
    format!("# HELP anygate_{name} {help}\n# TYPE anygate_{name} {kind}\n")
}

/// Whether samples of a metric have this name, without `anygate_`.
pub fn has_samples(family: &Family, name: &str) -> bool {
    let end = name.strip_prefix(family.name);
    match family.kind {
        Kind::Histogram | Kind::RouteHistogram => matches!(end, Some("_bucket" | "_sum" | "_count")),
        _ => end == Some(""),
    }
}

/// `{method="GET",status="2xx"}`, or nothing.
fn braced(labels: &[Pair]) -> String {
    let pairs: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}

/// A value of a label as it stands between quotes.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

/// The table of all metrics for the documentation, in Markdown.
pub fn documentation() -> String {
    let mut text =
        "| metric | kind | labels | unit | what it is |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for family in FAMILIES {
        let (kind, labels) = match family.kind {
            Kind::Counter(labels) => ("counter", labels),
            Kind::Gauge(labels) => ("gauge", labels),
            Kind::RouteCounter(labels) => ("counter", labels),
            Kind::Histogram | Kind::RouteHistogram => ("histogram", &[][..]),
            Kind::Resource(Resource::Time) => ("counter", &[][..]),
            Kind::Address | Kind::Resource(Resource::Amount) => ("gauge", &[][..]),
        };
        let mut labels: Vec<String> =
            labels.iter().map(|label| format!("`{}`: {}", label.name, label.values.join(", "))).collect();
        match family.kind {
            Kind::Resource(_) => labels.push("`worker`: its number".to_owned()),
            Kind::Address => labels.push("`address`: URL of the listening socket".to_owned()),
            Kind::RouteCounter(_) | Kind::RouteHistogram => {
                labels.insert(0, "`route`: its name".to_owned());
            }
            _ => {}
        }
        let name = family.name.trim_end_matches("_total");
        let unit = ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(unit)).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| `anygate_{}` | {kind} | {} | {unit} | {} |",
            family.name,
            labels.join("; "),
            family.help
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_has_the_table_as_it_is() {
        assert!(include_str!("../../../docs/guide/admin.md").contains(&documentation()), "run make docs");
    }
}
