//! The modules of a crate, and the paths by which they use each other.
//!
//! Read are the tokens of what is shipped: not comments, not strings, nothing that is there only in tests, benches, fuzzing or
//! the model checker. A path begins with `crate`, `super`, `self` or the name of a child; it is followed through `use`, so that a
//! name which a module only hands on counts for that module and for where it is from.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// A module by its names from the root on; the root has none.
type Module = Vec<String>;

/// The modules of a crate.
pub struct House {
    rooms: BTreeMap<Module, Room>,
}

#[derive(Default)]
struct Room {
    file: String,
    children: BTreeSet<String>,
    /// What `use` calls what, by the path as it is written.
    names: BTreeMap<String, Module>,
    /// Every path that is written here, with its line.
    paths: Vec<(usize, Module)>,
}

/// One module inside a room uses another.
#[derive(Debug)]
pub struct Arrow {
    /// File and line.
    pub place: String,
    pub from: String,
    pub to: String,
}

/// What a room's own file is called among what is in it.
const OWN: &str = "mod";

impl Arrow {
    /// Not from or to the room's own file.
    pub fn is_between_files(&self) -> bool {
        self.from != OWN && self.to != OWN
    }
}

/// Modules that use each other, and how.
#[derive(Debug)]
pub struct Circle {
    pub names: Vec<String>,
    #[expect(dead_code, reason = "a failure shows it")]
    how: Vec<String>,
}

impl House {
    /// Reads the crate whose root is `lib.rs` in this folder.
    pub fn read(folder: &str) -> House {
        House::follow(&|file| fs::read_to_string(Path::new(folder).join(file)).ok())
    }

    /// A crate of these files.
    pub fn of(files: &[(&str, &str)]) -> House {
        House::follow(&|file| files.iter().find(|(name, _)| *name == file).map(|(_, text)| (*text).to_owned()))
    }

    fn follow(text_of: &dyn Fn(&str) -> Option<String>) -> House {
        let mut house = House { rooms: BTreeMap::new() };
        let mut open = vec![Module::new()];
        while let Some(module) = open.pop() {
            let name = module.join("/");
            let files = if name.is_empty() {
                vec!["lib.rs".into()]
            } else {
                vec![format!("{name}.rs"), format!("{name}/mod.rs")]
            };
            let found = files.into_iter().find_map(|file| Some((text_of(&file)?, file)));
            let (text, file) = found.unwrap_or_else(|| panic!("the module {} has no file", module.join("::")));
            let tokens = text.parse().unwrap_or_else(|error| panic!("{file}: {error}"));
            house.scan(&module, &file, tokens, &mut open);
        }
        house
    }

    /// Takes in what is written in a module, and notes those of its children that have files of their own.
    fn scan(&mut self, module: &Module, file: &str, tokens: TokenStream, open: &mut Vec<Module>) {
        let mut room = Room { file: file.to_owned(), ..Room::default() };
        let mut inner = Vec::new();
        let mut found = Found { room: &mut room, inner: &mut inner };
        found.scan(tokens);
        for (name, body) in inner {
            let child: Module = module.iter().cloned().chain([name]).collect();
            match body {
                Some(body) => self.scan(&child, file, body, open),
                None => open.push(child),
            }
        }
        self.rooms.insert(module.clone(), room);
    }

    /// The names of what is in a room, its own file included, except in the root.
    pub fn inside(&self, room: &[&str]) -> BTreeSet<String> {
        let children = self.rooms[&module(room)].children.iter().cloned();
        children.chain((!room.is_empty()).then(|| OWN.to_owned())).collect()
    }

    /// Who uses whom among what is in a room.
    pub fn arrows(&self, room: &[&str]) -> Vec<Arrow> {
        let room = module(room);
        let inside = |module: &Module| match module.strip_prefix(&*room)? {
            [] if room.is_empty() => None,
            [] => Some(OWN.to_owned()),
            [name, ..] => Some(name.clone()),
        };
        let mut arrows = Vec::new();
        for (module, written) in &self.rooms {
            let Some(from) = inside(module) else { continue };
            for (line, path) in &written.paths {
                let mut homes = Vec::new();
                self.find(module, path, &mut homes);
                let used: BTreeSet<String> = homes.iter().filter_map(inside).filter(|to| *to != from).collect();
                for to in used {
                    let place = format!("{}:{line}", written.file);
                    arrows.push(Arrow { place, from: from.clone(), to });
                }
            }
        }
        arrows
    }

    /// Finds the module that has what a path in `module` names, and those that hand it on; none if it is of another crate.
    fn find(&self, module: &Module, path: &[String], homes: &mut Vec<Module>) {
        assert!(homes.len() < 32, "{} is a name for itself", path.join("::"));
        let (mut at, mut rest) = (module.clone(), path);
        match path.first().map_or("", String::as_str) {
            "crate" => (at, rest) = (Module::new(), &path[1..]),
            "self" => rest = &path[1..],
            "super" => {
                while let Some(("super", more)) = rest.split_first().map(|(first, more)| (first.as_str(), more)) {
                    at.pop();
                    rest = more;
                }
            }
            first => {
                let room = &self.rooms[module];
                if !room.children.contains(first) && !room.names.contains_key(first) {
                    return;
                }
            }
        }
        while let Some((next, more)) = rest.split_first() {
            let room = &self.rooms[&at];
            if room.children.contains(next) {
                at.push(next.clone());
                // Only in tests: whoever names it is there only in tests, too.
                if !self.rooms.contains_key(&at) {
                    return;
                }
                rest = more;
            } else if let Some(path) = room.names.get(next) {
                let path: Module = path.iter().chain(more).cloned().collect();
                homes.push(at.clone());
                return self.find(&at, &path, homes);
            } else {
                break;
            }
        }
        homes.push(at);
    }
}

fn module(names: &[&str]) -> Module {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Modules that use each other: each by way of others, or directly.
pub fn circles(arrows: &[Arrow]) -> Vec<Circle> {
    let mut reach: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for arrow in arrows {
        reach.entry(&arrow.from).or_default().insert(&arrow.to);
    }
    loop {
        let mut new = Vec::new();
        for (from, to) in &reach {
            let further = to.iter().filter_map(|next| reach.get(next)).flatten();
            new.extend(further.filter(|next| !to.contains(*next)).map(|next| (*from, *next)));
        }
        if new.is_empty() {
            break;
        }
        for (from, to) in new {
            reach.entry(from).or_default().insert(to);
        }
    }
    let reaches = |from: &str, to: &str| reach.get(from).is_some_and(|all| all.contains(to));
    let mut circles: BTreeMap<Vec<String>, Vec<String>> = BTreeMap::new();
    for arrow in arrows.iter().filter(|arrow| reaches(&arrow.to, &arrow.from)) {
        let same = |name: &&&str| reaches(name, &arrow.from) && reaches(&arrow.from, name);
        let names = reach.keys().filter(same).map(|name| (*name).to_owned()).collect();
        let how = circles.entry(names).or_default();
        // Of each two, where one uses the other first.
        let said = format!("{} uses {}", arrow.from, arrow.to);
        if !how.iter().any(|other: &String| other.ends_with(&format!(": {said}"))) {
            how.push(format!("{}: {said}", arrow.place));
        }
    }
    circles.into_iter().map(|(names, how)| Circle { names, how }).collect()
}

/// What was found in the tokens of one module.
struct Found<'a> {
    room: &'a mut Room,
    /// Modules in this one, with their tokens where they have no file.
    inner: &'a mut Vec<(String, Option<TokenStream>)>,
}

impl Found<'_> {
    fn scan(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at = self.take(&tokens, at);
        }
    }

    /// Takes in what stands at `at`; returns where it goes on.
    fn take(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        match &tokens[at] {
            TokenTree::Punct(punct) if punct.as_char() == '#' => match attribute(tokens, at) {
                Some((end, is_shipped)) => {
                    if is_shipped {
                        end
                    } else {
                        behind_item(tokens, end)
                    }
                }
                None => at + 1,
            },
            TokenTree::Group(group) => {
                self.scan(group.stream());
                at + 1
            }
            TokenTree::Ident(word) if word == "use" && !is(tokens, at + 1, '<') => {
                let end = (at..tokens.len()).find(|at| is(tokens, *at, ';')).unwrap_or(tokens.len());
                self.take_use(&[], &tokens[at + 1..end]);
                end
            }
            TokenTree::Ident(word) if word == "mod" => {
                let name = tokens.get(at + 1).map(ToString::to_string).unwrap_or_default();
                match tokens.get(at + 2) {
                    Some(TokenTree::Punct(end)) if end.as_char() == ';' => self.inner.push((name.clone(), None)),
                    Some(TokenTree::Group(body)) => self.inner.push((name.clone(), Some(body.stream()))),
                    _ => return at + 1,
                }
                self.room.children.insert(name);
                at + 3
            }
            TokenTree::Ident(word) if is_path(tokens, at + 1) && !(at >= 2 && is_path(tokens, at - 2)) => {
                let (path, end) = names(tokens, at);
                self.room.paths.push((word.span().start().line, path));
                end
            }
            _ => at + 1,
        }
    }

    /// A tree of `use`, and what stands before it.
    fn take_use(&mut self, before: &[String], tokens: &[TokenTree]) {
        for tree in tokens.split(|token| matches!(token, TokenTree::Punct(comma) if comma.as_char() == ',')) {
            let Some(first) = tree.first() else { continue };
            let line = first.span().start().line;
            let (path, end) = if matches!(first, TokenTree::Ident(_)) { names(tree, 0) } else { (Module::new(), 0) };
            let path: Module = before.iter().cloned().chain(path).collect();
            match tree.get(end) {
                Some(TokenTree::Group(more)) => {
                    let more: Vec<TokenTree> = more.stream().into_iter().collect();
                    self.take_use(&path, &more);
                }
                // A glob, or a name, with or without another.
                other => {
                    let is_self = path.last().is_some_and(|last| last == "self") && path.len() > 1;
                    let path = if is_self { path[..path.len() - 1].to_vec() } else { path };
                    let alias = match other {
                        Some(TokenTree::Ident(word)) if word == "as" => tree.get(end + 1).map(ToString::to_string),
                        Some(_) => None,
                        None => path.last().cloned(),
                    };
                    if let Some(alias) = alias.filter(|alias| alias != "_" && path.first() != Some(alias)) {
                        self.room.names.insert(alias, path.clone());
                    }
                    self.room.paths.push((line, path));
                }
            }
        }
    }
}

fn is(tokens: &[TokenTree], at: usize, sign: char) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == sign)
}

/// Whether `::` stands here.
fn is_path(tokens: &[TokenTree], at: usize) -> bool {
    is(tokens, at, ':') && is(tokens, at + 1, ':')
}

/// The names between `::` from here on, and where they end.
fn names(tokens: &[TokenTree], mut at: usize) -> (Module, usize) {
    let mut path = Module::new();
    while let Some(TokenTree::Ident(name)) = tokens.get(at) {
        path.push(name.to_string());
        at += 1;
        if !is_path(tokens, at) {
            break;
        }
        at += 2;
    }
    (path, at)
}

/// Where the attribute at `at` ends, and whether what it stands before is shipped.
fn attribute(tokens: &[TokenTree], at: usize) -> Option<(usize, bool)> {
    let at = if is(tokens, at + 1, '!') { at + 2 } else { at + 1 };
    let Some(TokenTree::Group(group)) = tokens.get(at).filter(|token| matches!(token, TokenTree::Group(_))) else {
        return None;
    };
    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
    let is_shipped = match &*inner {
        [TokenTree::Ident(word), TokenTree::Group(condition)] if word == "cfg" => holds(condition),
        _ => true,
    };
    Some((at + 1, is_shipped))
}

/// Whether a condition of `cfg` is so in what is shipped: all of it that there can be on this system.
fn holds(condition: &Group) -> bool {
    let tokens: Vec<TokenTree> = condition.stream().into_iter().collect();
    all_of(&tokens).into_iter().next().unwrap_or(true)
}

fn all_of(tokens: &[TokenTree]) -> Vec<bool> {
    let parts = tokens.split(|token| matches!(token, TokenTree::Punct(comma) if comma.as_char() == ','));
    let one = |part: &[TokenTree]| match part {
        [TokenTree::Ident(word), TokenTree::Group(inner)] => {
            let inner: Vec<TokenTree> = inner.stream().into_iter().collect();
            let parts = all_of(&inner);
            match word.to_string().as_str() {
                "any" => parts.contains(&true),
                "not" => !parts.contains(&true),
                _ => !parts.contains(&false),
            }
        }
        [TokenTree::Ident(word)] => !["test", "loom", "fuzzing"].contains(&word.to_string().as_str()),
        [TokenTree::Ident(word), .., value] => !(word == "feature" && value.to_string() == "\"bench\""),
        _ => true,
    };
    parts.filter(|part| !part.is_empty()).map(one).collect()
}

/// Where that ends which stands behind an attribute: an item with its body or its semicolon, a field or an arm with its comma.
fn behind_item(tokens: &[TokenTree], mut at: usize) -> usize {
    const ITEMS: [&str; 14] = [
        "fn",
        "mod",
        "use",
        "struct",
        "enum",
        "impl",
        "trait",
        "static",
        "const",
        "type",
        "macro_rules",
        "extern",
        "let",
        "union",
    ];
    while let Some((end, _)) = is(tokens, at, '#').then(|| attribute(tokens, at)).flatten() {
        at = end;
    }
    let mut is_item = false;
    while let Some(token) = tokens.get(at) {
        match token {
            TokenTree::Ident(word) => is_item |= ITEMS.contains(&word.to_string().as_str()),
            TokenTree::Punct(punct) if punct.as_char() == ';' || (punct.as_char() == ',' && !is_item) => return at + 1,
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => return at + 1,
            _ => {}
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who is used by the module `a` beside `b`, `c`, `d` and `e`, and in which lines.
    fn used(text: &str) -> Vec<(String, String)> {
        let house = House::of(&[
            ("lib.rs", "mod a; mod b; mod c; mod d; mod e; pub use d::Given;"),
            ("a.rs", text),
            ("b/mod.rs", "mod inner; pub use self::inner::Deep; pub use crate::c::Handed;"),
            ("b/inner.rs", ""),
            ("c.rs", ""),
            ("d.rs", ""),
            ("e.rs", ""),
        ]);
        let arrows = house.arrows(&[]).into_iter().filter(|arrow| arrow.from == "a");
        arrows.map(|arrow| (arrow.place.replace("a.rs:", ""), arrow.to)).collect()
    }

    #[test]
    fn every_form_of_a_path_is_found_with_its_line() {
        for text in [
            "\nuse crate::b::Deep;",
            "\nuse crate::b;",
            "\npub(crate) use crate::b::{self, Deep as Other};",
            "\nuse super::b::inner::*;",
            "\nfn f() -> crate::b::Deep { todo!() }",
            "\nfn f() { say!(\"{}\", super::b::f()) }",
            "\nmacro_rules! m { () => { $crate::b::f() } }",
            "\nimpl crate::b::Trait for Vec<u8> {}",
            "\nmod own { use super::super::b::Deep; }",
        ] {
            let found = used(text);
            assert!(!found.is_empty() && found.iter().all(|(line, to)| line == "2" && to == "b"), "{text}: {found:?}");
        }
        let found = used("use std::{fmt, io};\nuse crate::{\n    b::Deep,\n    c::{self, Other},\n};");
        let lines: Vec<_> = found.iter().map(|(line, to)| format!("{line} {to}")).collect();
        assert_eq!(lines, ["3 b", "4 c", "4 c"]);
    }

    #[test]
    fn a_name_that_is_handed_on_counts_for_whoever_does_and_for_where_it_is_from() {
        assert_eq!(used("use crate::b::Handed;"), ["b", "c"].map(|to| ("1".to_owned(), to.to_owned())));
        assert_eq!(used("fn f(_: crate::Given) {}"), [("1".to_owned(), "d".to_owned())]);
    }

    #[test]
    fn what_is_not_shipped_and_what_is_no_code_doesnt_count() {
        for text in [
            "// crate::b::f()\n/// [`crate::b`]\n//! crate::b",
            "const TEXT: &str = \"crate::b::f()\";",
            "#[cfg(test)]\nmod tests { use crate::b::Deep; }",
            "#[cfg(test)] mod tests;",
            "#[cfg(all(test, not(loom)))] use crate::b::{Deep, inner};",
            "#[cfg(any(feature = \"bench\", fuzzing))] #[inline] pub fn f<A, B>(a: A, b: B) -> [u8; 2] { crate::b::f() }",
            "struct S { #[cfg(test)] deep: Vec<crate::b::Deep>, other: u8 }",
            "fn f() { #[cfg(test)] let x = crate::b::f(); }",
            "use std::b::x; fn f() { io::b::g(); b::g() }",
        ] {
            assert_eq!(used(text), [], "{text}");
        }
        for text in [
            "#[cfg(not(test))] use crate::e::x;",
            "#[cfg(feature = \"other\")] use crate::e::x;",
            "#[cfg(not(loom))] #[cfg(unix)] fn f() { crate::e::x() }",
            "#[cfg(test)] use crate::b::{x, y}; fn f() { crate::e::x() }",
            "struct S { #[cfg(test)] deep: Vec<crate::b::Deep>, other: crate::e::X }",
            "#[cfg(test)] fn f<A, B>() where A: Into<B> { crate::b::x() } use crate::e::x;",
        ] {
            assert_eq!(used(text).iter().map(|(_, to)| to.as_str()).collect::<Vec<_>>(), ["e"], "{text}");
        }
    }
}
