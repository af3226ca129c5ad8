//! Which route a request is counted under: the one that the application names, or the first pattern of the settings that its
//! path has. A client names none.

use std::fmt;
use std::time::Duration;

use anygate_config::{RouteMetricsPlan, RoutePattern};
use anygate_proto::head::RequestHead;

use crate::shared_memory::route_table::{RouteSlot, RouteTable};

/// The routes of a site.
pub struct RouteMetrics {
    /// Whether the application's names count.
    from_application: bool,
    patterns: Vec<(RoutePattern, RouteSlot)>,
    table: RouteTable,
}

impl fmt::Debug for RouteMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteMetrics").field("patterns", &self.patterns).finish_non_exhaustive()
    }
}

impl RouteMetrics {
    /// Counts in `table`. All patterns are there from now on.
    pub fn new(plan: &RouteMetricsPlan, table: RouteTable) -> RouteMetrics {
        let patterns = plan.patterns.iter().map(|pattern| (pattern.clone(), table.place(pattern.text())));
        RouteMetrics { from_application: plan.from_application, patterns: patterns.collect(), table }
    }

    /// Returns where the route is that an application names; an empty name is none.
    pub fn named(&self, route: &str) -> Option<RouteSlot> {
        (self.from_application && !route.is_empty()).then(|| self.table.place(route))
    }

    /// Counts a response. `named`: where the route is that the application has named.
    pub fn count(&self, named: Option<RouteSlot>, head: &RequestHead, status: u16, duration: Duration) {
        let of_path = || self.patterns.iter().find(|(pattern, _)| pattern.has(head.path()));
        if let Some(place) = named.or_else(|| of_path().map(|(_, place)| *place)) {
            self.table.count(place, status, duration);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::fixtures;

    #[test]
    fn the_application_comes_first_and_then_the_first_pattern() {
        let cells: Vec<_> = (0..RouteTable::CELLS).map(|_| AtomicU64::new(0)).collect();
        let table = RouteTable::new(Arc::new(cells));
        let patterns = ["/users/*/orders", "/users/**"].map(|text| RoutePattern::new(text).unwrap());
        let plan = RouteMetricsPlan { from_application: true, patterns: patterns.to_vec() };
        let routes = RouteMetrics::new(&plan, table.clone());
        for (path, named) in [
            ("/users/7/orders", ""),
            ("/users/7/orders", "/<own>"),
            ("/users/7", ""),
            ("/users/7/8/9", ""),
            ("/elsewhere", ""),
        ] {
            let head = fixtures::request("GET", path, &[]);
            routes.count(routes.named(named), &head, 200, Duration::ZERO);
        }
        let counted: Vec<_> = table.routes().map(|(name, numbers)| (name, numbers[1])).collect();
        let expected = [("/users/*/orders", 1), ("/users/**", 2), ("/<own>", 1)];
        assert_eq!(counted, expected.map(|(name, count)| (name.to_owned(), count)));
        let deaf = RouteMetrics::new(&RouteMetricsPlan { from_application: false, ..plan }, table);
        assert_eq!(deaf.named("/<own>"), None);
    }
}
