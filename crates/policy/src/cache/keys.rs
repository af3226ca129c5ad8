//! Keys of the cache: the URI that a request asks for, and what else tells its responses from others.

use std::sync::Arc;

use anygate_proto::head::RequestHead;

/// The key of what a request asks for. `https`: the scheme of its URI.
pub(super) fn request_key(request: &RequestHead, https: bool) -> Arc<[u8]> {
    if let Some(target) = request.own_target() {
        return key(https, request.authority(), request.prefix(), target).into();
    }
    // Lists and rules look at what the application sees, so the key has that as well as what the client asked for.
    let seen = [request.script_name(), request.path(), request.query(), request.target()];
    let path = [request.script_name(), request.path()].concat();
    [key(https, request.authority(), b"", &path), seen.join(&0)].join(&0).into()
}

/// A URI: scheme, authority, mount point and target, of which the first two have no case. Behind a NUL, which no URI has, is
/// what else tells an entry from others: the same URI is another page where less of it is the mount point.
pub(super) fn key(https: bool, authority: &[u8], mount: &[u8], target: &[u8]) -> Vec<u8> {
    let scheme: &[u8] = if https { b"https://" } else { b"http://" };
    let end: &[u8] = if mount.is_empty() { b"" } else { b"\0" };
    [scheme, &authority.to_ascii_lowercase(), mount, target, end, mount].concat()
}

/// Whether the request spells the host as others do. The application sees the spelling and may respond to another one in
/// another way: such a client is sent what is stored, and its response is its own.
pub(super) fn has_usual_host(request: &RequestHead) -> bool {
    !request.authority().iter().any(u8::is_ascii_uppercase)
}
