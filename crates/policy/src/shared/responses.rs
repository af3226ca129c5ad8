//! A store of the cache that all nodes use. One URI is one hash, so that forgetting it is one command: the field `vary` has
//! the lists of names by which its responses differ, every other field is a response, named by the values of those.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use anygate_proto::head::RequestHead;
use aws_lc_rs::digest;
use redis::Script;

use super::Redis;
use crate::cache::{Entry, Store, field_value};

/// Where the lists of names are. Names of responses begin with `=`.
const VARY: &str = "vary";
/// Keys that one step of a purge looks at.
const SCAN: usize = 1000;

/// Saves a response. A URI that has too many of them, or too many lists, starts anew.
static SAVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local key, name, response, names, keep = KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local lists = redis.call('HGET', key, 'vary') or ''
if not string.find('\\n' .. lists, '\\n' .. names .. '\\n', 1, true) then
  local _, count = string.gsub(lists, '\\n', '')
  if count >= 4 then redis.call('DEL', key) lists = '' end
  lists = names .. '\\n' .. lists
end
if redis.call('HLEN', key) > 16 then redis.call('DEL', key) lists = names .. '\\n' end
redis.call('HSET', key, 'vary', lists, name, response)
if redis.call('PTTL', key) < keep then redis.call('PEXPIRE', key, keep) end
return 1",
    )
});

impl Store for Redis {
    fn load(&self, key: &[u8], request: &RequestHead, now: SystemTime) -> Option<Arc<Entry>> {
        let key = self.key(&[b"response", key]);
        let plain = name(b"", request);
        // Most URIs have one response, which is here then at once.
        let read = |names: &[Vec<u8>]| -> Option<Vec<Option<Vec<u8>>>> {
            self.ask(|connection| redis::cmd("HMGET").arg(&key).arg(VARY).arg(names).query(connection))
        };
        let found = read(std::slice::from_ref(&plain))?;
        let lists = found.first()?.clone()?;
        let names: Vec<_> = lists
            .split(|&byte| byte == b'\n')
            .filter(|list| !list.is_empty() && *list != b"-")
            .map(|list| name(list, request))
            .collect();
        let mut responses: Vec<_> = found.into_iter().skip(1).flatten().collect();
        if !names.is_empty() {
            responses.extend(read(&names)?.into_iter().skip(1).flatten());
        }
        responses
            .iter()
            .filter_map(|bytes| Entry::decode(bytes))
            .find(|entry| entry.fits(request) && !entry.keep(now).is_zero())
            .map(Arc::new)
    }

    fn save(&self, key: &[u8], request: &RequestHead, entry: &Arc<Entry>, now: SystemTime) {
        let list = entry.varies_by().collect::<Vec<_>>().join(&b',');
        let keep = u64::try_from(entry.keep(now).as_millis()).unwrap_or(u64::MAX);
        let keep = keep.min(u64::try_from(Duration::from_secs(1 << 31).as_millis()).unwrap_or(u64::MAX));
        if keep == 0 {
            return;
        }
        let mut call = SAVE.prepare_invoke();
        call.key(self.key(&[b"response", key])).arg(name(&list, request)).arg(entry.encode());
        call.arg(if list.is_empty() { b"-" } else { &list[..] }).arg(keep);
        // A response that cannot be stored is asked for again.
        let _: Option<i64> = self.ask(|connection| call.invoke(connection));
    }

    fn remove(&self, key: &[u8]) {
        let key = self.key(&[b"response", key]);
        // What cannot be reached gives no responses either. Those that it still has when it is back are then as old as their
        // lifetimes let them be (RFC 9111 section 4.4 asks for no more).
        let _: Option<i64> = self.ask(|connection| redis::cmd("UNLINK").arg(&key).query(connection));
    }

    fn remove_prefix(&self, prefix: &[u8]) {
        let mut pattern = Vec::new();
        for &byte in &self.key(&[b"response", prefix]) {
            if b"*?[]\\^".contains(&byte) {
                pattern.push(b'\\');
            }
            pattern.push(byte);
        }
        pattern.push(b'*');
        let mut cursor = "0".to_owned();
        loop {
            let step = self.ask(|connection| {
                let mut scan = redis::cmd("SCAN");
                scan.arg(&cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN);
                let (next, keys): (String, Vec<Vec<u8>>) = scan.query(connection)?;
                if !keys.is_empty() {
                    let _count: i64 = redis::cmd("UNLINK").arg(&keys).query(connection)?;
                }
                Ok(next)
            });
            match step {
                Some(next) if next != "0" => cursor = next,
                _ => return,
            }
        }
    }

    fn is_shared(&self) -> bool {
        true
    }
}

/// The name of the response that differs by the fields of this list, for this request.
fn name(list: &[u8], request: &RequestHead) -> Vec<u8> {
    let mut hash = digest::Context::new(&digest::SHA256);
    for field in list.split(|&byte| byte == b',').filter(|field| !field.is_empty()) {
        let value = field_value(request, field);
        hash.update(field);
        hash.update(if value.is_some() { b"=" } else { b"-" });
        // Values have no line feeds.
        hash.update(&value.unwrap_or_default());
        hash.update(b"\n");
    }
    [b"=", hash.finish().as_ref()].concat()
}
