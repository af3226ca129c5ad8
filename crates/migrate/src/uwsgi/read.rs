//! Files of uWSGI, each of its formats, as options in their order. Nothing is expanded here.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

use crate::draft::{Entry, Position, Refused};

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Ini,
    Xml,
    Yaml,
    Json,
}

impl Format {
    /// The format that the ending of a file's name says.
    pub(crate) fn of(name: &str) -> Option<Format> {
        match name.rsplit_once('.')?.1 {
            "ini" => Some(Format::Ini),
            "xml" => Some(Format::Xml),
            "yaml" | "yml" => Some(Format::Yaml),
            "json" | "js" => Some(Format::Json),
            _ => None,
        }
    }
}

/// Returns the options of a section, in order.
///
/// Errors: the text is not of that format, or has no such section.
pub(crate) fn section(text: &str, format: Format, shown: &str, section: &str) -> Result<Vec<Entry>, Refused> {
    let found = match format {
        Format::Ini => ini(text, shown, section)?,
        Format::Xml => xml(text, shown, section)?,
        Format::Yaml => yaml(text, shown, section)?,
        Format::Json => json(text, shown, section)?,
    };
    found.ok_or_else(|| Position::whole(shown).refuse(format_args!("it has no section {section}")))
}

/// Makes an option; one without a value is a flag that is on.
pub(super) fn entry(position: Position, name: &str, value: &str) -> Entry {
    Entry {
        position,
        key: name.trim().replace('-', "_"),
        value: value.trim().to_owned(),
        typed: format!("{} = {}", name.trim(), value.trim()),
    }
}

fn ini(text: &str, shown: &str, wanted: &str) -> Result<Option<Vec<Entry>>, Refused> {
    let mut found: Option<Vec<Entry>> = None;
    let mut is_inside = false;
    for (number, line) in text.lines().enumerate() {
        let position = Position::line(shown, number + 1);
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            let name = name.split(']').next().unwrap_or_default().trim();
            is_inside = name == wanted;
            if is_inside {
                found.get_or_insert_default();
            }
            continue;
        }
        if !is_inside {
            continue;
        }
        let (name, value) = line.split_once('=').unwrap_or((line, "true"));
        if name.trim().is_empty() {
            return Err(position.refuse(format_args!("{line:?} names no option: write NAME = VALUE")));
        }
        found.get_or_insert_default().push(entry(position, name, value));
    }
    Ok(found)
}

fn xml(text: &str, shown: &str, wanted: &str) -> Result<Option<Vec<Entry>>, Refused> {
    let options = roxmltree::ParsingOptions { allow_dtd: false, ..roxmltree::ParsingOptions::default() };
    let document = roxmltree::Document::parse_with_options(text, options)
        .map_err(|error| Position::whole(shown).refuse(format_args!("is not XML: {error}")))?;
    let line = |node: roxmltree::Node<'_, '_>| {
        usize::try_from(document.text_pos_at(node.range().start).row).unwrap_or_default()
    };
    let is_wanted = |node: &roxmltree::Node<'_, '_>| {
        node.has_tag_name("uwsgi") && (wanted == "uwsgi" || node.attribute("id") == Some(wanted))
    };
    let Some(root) = document.descendants().find(is_wanted) else { return Ok(None) };
    let mut found = Vec::new();
    for node in root.children().filter(roxmltree::Node::is_element) {
        let position = Position::line(shown, line(node));
        let name = node.tag_name().name();
        if let Some(child) = node.children().find(roxmltree::Node::is_element) {
            let inner = child.tag_name().name();
            return Err(position.refuse(format_args!(
                "<{name}> has <{inner}> inside, which is an old form: write an option of uWSGI such as <mount>"
            )));
        }
        let value = node.text().map(str::trim).filter(|text| !text.is_empty()).unwrap_or("true");
        found.push(entry(position, name, value));
    }
    Ok(Some(found))
}

/// uWSGI's YAML: a section, options below it, and lists for those that are repeated.
fn yaml(text: &str, shown: &str, wanted: &str) -> Result<Option<Vec<Entry>>, Refused> {
    let mut found: Option<Vec<Entry>> = None;
    let mut is_inside = false;
    let mut list: Option<String> = None;
    for (number, line) in text.lines().enumerate() {
        let position = Position::line(shown, number + 1);
        let content = without_comment(line);
        let plain = content.trim();
        if plain.is_empty() || plain == "---" || plain == "..." || plain.starts_with('%') && !is_inside {
            continue;
        }
        if !content.starts_with([' ', '\t', '-']) {
            is_inside = plain.strip_suffix(':').map(unquoted) == Some(wanted);
            if is_inside {
                found.get_or_insert_default();
            }
            continue;
        }
        if !is_inside {
            continue;
        }
        let options = found.get_or_insert_default();
        if let Some(item) = plain.strip_prefix("- ") {
            match (&list, item.split_once(": ")) {
                (Some(name), None) => options.push(entry(position, name, unquoted(item))),
                // A list of options, each with its name.
                (None, Some((name, value))) => {
                    options.push(entry(position, unquoted(name), unquoted(value)));
                }
                (Some(name), Some(_)) => options.push(entry(position, name, unquoted(item))),
                (None, None) => {
                    return Err(position.refuse(format_args!("{plain:?} belongs to no option")));
                }
            }
            continue;
        }
        match plain.split_once(':') {
            Some((name, "")) => list = Some(unquoted(name).to_owned()),
            Some((name, value)) if value.starts_with([' ', '\t']) => {
                list = None;
                let value = value.trim();
                let items = value.strip_prefix('[').and_then(|value| value.strip_suffix(']'));
                match items {
                    Some(items) => options.extend(
                        items.split(',').map(|item| entry(position.clone(), unquoted(name), unquoted(item))),
                    ),
                    None => options.push(entry(position, unquoted(name), unquoted(value))),
                }
            }
            _ => return Err(position.refuse(format_args!("{plain:?} must be written NAME: VALUE"))),
        }
    }
    Ok(found)
}

/// A comment begins with `#` at the beginning of a line or behind a space, outside of quotes.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            (None, '#') if before.is_whitespace() => return line.get(..at).unwrap_or(line),
            _ => {}
        }
        before = c;
    }
    line
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    let inner = |quote: char| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

fn json(text: &str, shown: &str, wanted: &str) -> Result<Option<Vec<Entry>>, Refused> {
    let root: Node = serde_json::from_str(text)
        .map_err(|error| Position::whole(shown).refuse(format_args!("is not JSON: {error}")))?;
    let Node::Table(sections) = root else {
        return Err(Position::whole(shown).refuse("it must be a table with a section uwsgi"));
    };
    let Some((_, Node::Table(options))) = sections.into_iter().find(|(name, _)| name == wanted) else {
        return Ok(None);
    };
    let mut found = Vec::new();
    let mut from = 0;
    for (name, node) in options {
        from = position(text, &name, from);
        let line = text.get(..from).unwrap_or_default().matches('\n').count() + 1;
        let position = Position::line(shown, line);
        let items = match node {
            Node::List(items) => items,
            item => vec![item],
        };
        for item in items {
            match item {
                Node::Text(value) => found.push(entry(position.clone(), &name, &value)),
                Node::Nothing => {}
                Node::List(_) | Node::Table(_) => {
                    return Err(
                        position.refuse(format_args!("{name}: must be a text, a number or a list of them"))
                    );
                }
            }
        }
    }
    Ok(Some(found))
}

/// Where the next `"name"` is.
fn position(text: &str, name: &str, from: usize) -> usize {
    let quoted = serde_json::Value::from(name).to_string();
    text.get(from..).and_then(|rest| rest.find(&quoted)).map_or(from, |at| from + at + 1)
}

/// JSON in the order in which it is written, with names that are there twice.
#[derive(Debug)]
enum Node {
    Table(Vec<(String, Node)>),
    List(Vec<Node>),
    Text(String),
    Nothing,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("settings")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Node, E> {
        Ok(Node::Text(flag.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Text(number.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Text(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Node, E> {
        Ok(Node::Text(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Nothing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            all.push(item);
        }
        Ok(Node::List(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Node, A::Error> {
        let mut all = Vec::new();
        while let Some(pair) = pairs.next_entry()? {
            all.push(pair);
        }
        Ok(Node::Table(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str, format: Format) -> Vec<(String, String, usize)> {
        let found = section(text, format, "f", "uwsgi").unwrap();
        found.into_iter().map(|entry| (entry.key, entry.value, entry.position.line.unwrap())).collect()
    }

    #[test]
    fn the_formats_say_the_same() {
        let ini = "; x\n[other]\na = 1\n[uwsgi]\nmaster\nenv = A=1\n# c\nenv = B = 2\nlong-one = a b\n";
        let xml =
            "<x><uwsgi>\n<master/>\n<env>A=1</env><env>B = 2</env>\n<long-one>a b</long-one></uwsgi></x>";
        let yaml = "other:\n  a: 1\nuwsgi:\n  master: true # yes\n  env:\n    - A=1\n    - B = 2\n  long-one: 'a b'\n";
        let json =
            r#"{"other": {"a": 1}, "uwsgi": {"master": true, "env": ["A=1", "B = 2"], "long-one": "a b"}}"#;
        for (text, format) in
            [(ini, Format::Ini), (xml, Format::Xml), (yaml, Format::Yaml), (json, Format::Json)]
        {
            let found: Vec<_> = pairs(text, format).into_iter().map(|(key, value, _)| (key, value)).collect();
            let expected = [("master", "true"), ("env", "A=1"), ("env", "B = 2"), ("long_one", "a b")];
            assert_eq!(found, expected.map(|(key, value)| (key.to_owned(), value.to_owned())), "{format:?}");
        }
        assert_eq!(pairs(ini, Format::Ini)[2].2, 8);
        assert_eq!(pairs(xml, Format::Xml)[3].2, 4);
        assert_eq!(pairs("{\"uwsgi\": {\n\"a\": 1,\n\"b\": 2}}", Format::Json)[1].2, 3);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let refused = |text: &str, format| section(text, format, "f.x", "uwsgi").unwrap_err().0;
        assert_eq!(refused("[other]\n", Format::Ini), "f.x: it has no section uwsgi");
        assert!(refused("[uwsgi]\n\n= 3", Format::Ini).starts_with("f.x:3: "));
        assert!(
            refused("<uwsgi>\n<app><script>x</script></app></uwsgi>", Format::Xml).starts_with("f.x:2: ")
        );
        assert!(refused("<uwsgi>", Format::Xml).contains("is not XML"));
        assert!(
            refused("<!DOCTYPE x [<!ENTITY a \"b\">]><uwsgi><a>&a;</a></uwsgi>", Format::Xml).contains("XML")
        );
        assert!(refused("uwsgi:\n  what\n", Format::Yaml).starts_with("f.x:2: "));
        assert!(refused("{", Format::Json).contains("is not JSON"));
    }
}
