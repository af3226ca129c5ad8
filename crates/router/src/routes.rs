//! Which application a request is for.

use std::cmp::Reverse;
use std::path::PathBuf;

use anygate_proto::cgi;
use anygate_proto::head::RequestHead;
use anygate_proto::host_pattern::HostPattern;

/// An application with processes of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Name in messages.
    pub name: String,
    /// Its host, if it is not for every one.
    pub host: Option<HostPattern>,
    /// Where it is mounted, percent-decoded; empty at the root.
    pub path: String,
    /// PATH_INFO has the path, too.
    pub keep_path: bool,
    /// Socket of its processes.
    pub socket: PathBuf,
}

/// Puts routes into the order in which they are tried: first those of a host, then the longest path.
pub(crate) fn rank(routes: &mut [Route]) {
    routes.sort_by_key(|route| {
        let of_host = match &route.host {
            None => (0, 0),
            Some(HostPattern::Below(end)) => (1, end.len()),
            Some(HostPattern::Exact(name)) => (2, name.len()),
        };
        Reverse((of_host, route.path.len()))
    });
}

/// The first route that fits, by its place.
pub(crate) fn find(routes: &[Route], head: &RequestHead) -> Option<usize> {
    routes.iter().position(|route| {
        let path = route.path.as_bytes();
        route.host.as_ref().is_none_or(|host| host.matches(head.authority()))
            && (path.is_empty() || !cgi::split(head.path(), path).0.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(host: &str, path: &str) -> Option<String> {
        let mut routes: Vec<Route> = [
            ("rest", "", ""),
            ("shop", "", "/shop"),
            ("deep", "", "/shop/deep"),
            ("blog", "blog.example", ""),
            ("blog-shop", "blog.example", "/shop"),
            ("any", "*.example", "/only"),
        ]
        .map(|(name, host, path)| Route {
            name: name.to_owned(),
            host: match host.strip_prefix('*') {
                Some(end) => Some(HostPattern::Below(end.to_owned())),
                None => (!host.is_empty()).then(|| HostPattern::Exact(host.to_owned())),
            },
            path: path.to_owned(),
            keep_path: false,
            socket: PathBuf::new(),
        })
        .to_vec();
        rank(&mut routes);
        let mut head = RequestHead::default();
        let (authority, path) =
            (head.push_text(host.as_bytes()).unwrap(), head.push_text(path.as_bytes()).unwrap());
        head.set_authority(authority);
        head.set_path(path);
        find(&routes, &head).map(|place| routes[place].name.clone())
    }

    #[test]
    fn first_those_of_the_host_then_the_longest_path() {
        for (host, path, name) in [
            ("", "/", "rest"),
            ("a.org", "/shopping", "rest"),
            ("a.org", "/shop", "shop"),
            ("a.org", "/shop/", "shop"),
            ("a.org", "/shop/deep/x", "deep"),
            ("a.org", "//shop", "rest"),
            ("BLOG.example.:80", "/", "blog"),
            ("blog.example", "/shop/deep", "blog-shop"),
            ("x.example", "/only", "any"),
            (".example", "/only", "rest"),
            ("x.example", "/", "rest"),
            ("[::1]:80", "/", "rest"),
            ("x.blog.example", "/", "rest"),
        ] {
            assert_eq!(found(host, path).as_deref(), Some(name), "{host} {path}");
        }
    }
}
