//! The rights file (`--rights`): roles, static tokens and certificates, in TOML.
//!
//! ```toml
//! [roles.pro]
//! sub = ["q.us.>", "t.us.>"]
//! rate = { "q.>" = 4 }
//! conns = 2
//!
//! [tokens.desk-7]                      # somebody who shows a static token
//! sha256 = "9f86d081884c7d65…"         # of the token: `stentor token --hash` says it
//! role = "pro"
//! expires = 2027-01-31T00:00:00Z
//!
//! [certificates."feed.example.com"]    # a client certificate of this name; "*" for every other
//! pub = ["q.>"]
//! ```
//!
//! A role, a token and a certificate give the same things: `sub`, `pub`, `delay`, `rate`, `modes`, `conns`, `admin`, as in a token that is signed;
//! tokens and certificates may name a role beside. The secrets aren't in the file, only their hashes.
//!
//! Entries lie sorted in one block, by hash or by name, with what they give shared where it is the same: a hundred thousand that name a role take some 150 bytes
//! each.

use std::{collections::HashMap, fmt, fs::File as Opened, io::Read, path::Path, sync::Arc};

use toml::de::{DeTable, DeValue};

use super::{
    patterns::Patterns,
    rights::{Rights, Sum},
    token::{NAME_MAX, latest_and_all},
};

/// Some hundred thousand entries.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// What a rights file says.
#[derive(Debug, Default)]
pub struct File {
    roles: HashMap<Box<str>, Arc<Rights>>,
    /// By their hashes.
    tokens: Vec<Entry<[u8; 32]>>,
    /// By their names.
    certificates: Vec<Entry<Box<str>>>,
}

/// Somebody whom the file names.
#[derive(Debug)]
pub struct Entry<Id> {
    /// By what it is known: the hash of its token, or the name in its certificate.
    pub id: Id,
    /// What it is called.
    pub name: Box<str>,
    /// What its entry gives by itself, and its role.
    pub gives: Gives,
    /// When it expires, in seconds since the Unix epoch.
    pub expires: Option<u64>,
}

/// What an entry gives.
#[derive(Clone, Debug, Default)]
pub struct Gives {
    /// By itself.
    pub own: Option<Arc<Rights>>,
    /// By its role.
    pub role: Option<Arc<Rights>>,
}

impl Gives {
    /// Both together.
    pub(super) fn sum(&self) -> Sum<'_> {
        Sum([self.own.as_deref(), self.role.as_deref()])
    }
}

/// A mistake, and at which byte of the text.
struct Mistake(usize, String);

impl File {
    /// Reads one.
    ///
    /// # Errors
    /// Every mistake in it, one a line, with file and line.
    pub fn read(path: &Path) -> Result<File, String> {
        let at = |what: &dyn fmt::Display| format!("--rights {}: {what}", path.display());
        let mut text = String::new();
        let file = Opened::open(path).map_err(|error| at(&error))?;
        let length = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| at(&error))?;
        if length as u64 > FILE_BYTES_MAX {
            return Err(at(&format_args!("expected a file of at most {FILE_BYTES_MAX} bytes, found more")));
        }
        File::parse(&text).map_err(|mistakes| {
            let said = mistakes.into_iter().map(|(line, why)| format!("--rights {}:{line}: {why}", path.display()));
            said.collect::<Vec<_>>().join("\n")
        })
    }

    /// Reads the text of one.
    ///
    /// # Errors
    /// Each mistake in it, with its line: a hundred at most.
    pub fn parse(text: &str) -> Result<File, Vec<(usize, String)>> {
        let mut reader = Reader::default();
        match DeTable::parse(text) {
            Ok(table) => reader.read(table.get_ref()),
            Err(error) => {
                let why = format!("not TOML: {}", error.message().trim().replace('\n', ", "));
                reader.mistakes.push(Mistake(error.span().map_or(0, |span| span.start), why));
            }
        }
        if reader.mistakes.is_empty() {
            return Ok(reader.file);
        }
        let mut mistakes = reader.mistakes;
        mistakes.sort_by_key(|Mistake(at, _)| *at);
        mistakes.truncate(MISTAKES_MAX);
        // Counted on from one to the next.
        let (mut line, mut from) = (1, 0);
        let numbered = mistakes.into_iter().map(|Mistake(at, why)| {
            line += text.bytes().take(at).skip(from).filter(|byte| *byte == b'\n').count();
            from = from.max(at);
            (line, why)
        });
        Err(numbered.collect())
    }

    /// What a role gives.
    pub fn role(&self, name: &str) -> Option<&Arc<Rights>> {
        self.roles.get(name)
    }

    /// Who shows the token of this hash.
    pub fn token(&self, hash: &[u8; 32]) -> Option<&Entry<[u8; 32]>> {
        let at = self.tokens.binary_search_by(|entry| entry.id.cmp(hash)).ok()?;
        self.tokens.get(at)
    }

    /// Who has a certificate of this name, or the entry for every other.
    pub fn certificate(&self, name: &str) -> Option<&Entry<Box<str>>> {
        let find = |name: &str| self.certificates.binary_search_by(|entry| (*entry.id).cmp(name)).ok();
        self.certificates.get(find(name).or_else(|| find("*"))?)
    }

    /// How many roles, tokens and certificates there are.
    pub fn counts(&self) -> [usize; 3] {
        [self.roles.len(), self.tokens.len(), self.certificates.len()]
    }
}

/// More than that nobody reads.
const MISTAKES_MAX: usize = 100;

/// A file that is being read.
#[derive(Default)]
struct Reader {
    file: File,
    mistakes: Vec<Mistake>,
}

type Table<'t> = DeTable<'t>;

impl Reader {
    fn read(&mut self, table: &Table<'_>) {
        for (key, value) in table {
            let (at, name) = (key.span().start, key.get_ref().as_ref());
            if !matches!(name, "roles" | "tokens" | "certificates") {
                self.wrong(at, format!("{name}: expected roles, tokens or certificates"));
            } else if !matches!(value.get_ref(), DeValue::Table(_)) {
                self.wrong(at, format!("{name}: expected a table, such as [{name}.NAME]"));
            }
        }
        // Roles first, since the others name them, wherever they stand.
        for (at, name, role) in self.entries(table, "roles") {
            if let Some((rights, _)) = self.rights(at, &format!("roles.{name}"), role, &[]) {
                self.file.roles.insert(name.into(), Arc::new(rights));
            }
        }
        let mut hashes = HashMap::new();
        for (at, name, entry) in self.entries(table, "tokens") {
            let (whole, beside) = (format!("tokens.{name}"), ["sha256", "role", "expires"]);
            let Some(hash) = self.hash(at, &whole, entry) else { continue };
            if let Some(other) = hashes.insert(hash, name) {
                self.wrong(at, format!("{whole}: has the same sha256 as tokens.{other}"));
            }
            if let Some((gives, expires)) = self.gives(at, &whole, entry, &beside) {
                self.file.tokens.push(Entry { id: hash, name: name.into(), gives, expires });
            }
        }
        self.file.tokens.sort_unstable_by_key(|entry| entry.id);
        for (at, name, entry) in self.entries(table, "certificates") {
            let whole = format!("certificates.{name:?}");
            if let Some((gives, expires)) = self.gives(at, &whole, entry, &["role", "expires"]) {
                self.file.certificates.push(Entry { id: name.into(), name: name.into(), gives, expires });
            }
        }
        self.file.certificates.sort_unstable_by(|one, other| one.id.as_ref().cmp(other.id.as_ref()));
    }

    fn wrong(&mut self, at: usize, why: String) {
        if self.mistakes.len() < 10 * MISTAKES_MAX {
            self.mistakes.push(Mistake(at, why));
        }
    }

    /// The entries of a part, each with where it stands and its name.
    fn entries<'t>(&mut self, table: &'t Table<'_>, part: &str) -> Vec<(usize, &'t str, &'t Table<'t>)> {
        let Some(DeValue::Table(entries)) = table.get(part).map(|value| value.get_ref()) else { return Vec::new() };
        let mut found = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let (at, name) = (key.span().start, key.get_ref().as_ref());
            if !(1..=NAME_MAX).contains(&name.len()) || name.chars().any(char::is_control) {
                self.wrong(at, format!("{part}: expected a name of 1 to {NAME_MAX} bytes, found {name:.80?}"));
                continue;
            }
            match value.get_ref() {
                DeValue::Table(entry) => found.push((at, name, entry)),
                _ => self.wrong(at, format!("{part}.{name}: expected a table")),
            }
        }
        found
    }

    /// What an entry gives with its role, and until when.
    fn gives(&mut self, at: usize, whole: &str, entry: &Table<'_>, beside: &[&str]) -> Option<(Gives, Option<u64>)> {
        let (rights, own) = self.rights(at, whole, entry, beside)?;
        let mut gives = Gives { own: own.then(|| Arc::new(rights)), role: None };
        if let Some(value) = entry.get("role") {
            let at = value.span().start;
            match value.get_ref().as_str().map(|name| (name, self.file.roles.get(name).cloned())) {
                Some((_, Some(role))) => gives.role = Some(role),
                Some((name, None)) => self.wrong(at, format!("{whole}: role: there is no [roles.{name:.80}]")),
                None => self.wrong(at, format!("{whole}: role: expected the name of a role")),
            }
        }
        let mut expires = None;
        if let Some(value) = entry.get("expires") {
            match value.get_ref() {
                DeValue::Datetime(moment) => match seconds(&moment.to_string()) {
                    Some(moment) => expires = Some(moment),
                    None => self.wrong(value.span().start, format!("{whole}: expires: {EXPIRES}, found {moment}")),
                },
                _ => self.wrong(value.span().start, format!("{whole}: expires: {EXPIRES}")),
            }
        }
        Some((gives, expires))
    }

    fn hash(&mut self, at: usize, whole: &str, entry: &Table<'_>) -> Option<[u8; 32]> {
        let expected = "expected the SHA-256 of the token, 64 hexadecimal digits: stentor token --hash says it";
        let Some(value) = entry.get("sha256") else {
            self.wrong(at, format!("{whole}: has no sha256: {expected}"));
            return None;
        };
        // Not shown: it may be the token itself, by mistake.
        let found = value.get_ref().as_str().and_then(unhex);
        if found.is_none() {
            self.wrong(value.span().start, format!("{whole}: sha256: {expected}"));
        }
        found
    }

    /// What a table gives by itself, and whether it says anything of that.
    fn rights(&mut self, _: usize, whole: &str, table: &Table<'_>, beside: &[&str]) -> Option<(Rights, bool)> {
        let (mut rights, mut own) = (Rights::default(), false);
        let before = self.mistakes.len();
        for (key, value) in table {
            let (at, name, value) = (value.span().start, key.get_ref().as_ref(), value.get_ref());
            let wrong = |why: String| format!("{whole}: {name}: {why}");
            own |= !beside.contains(&name);
            let taken = match name {
                "sub" => patterns(value).map(|patterns| rights.sub = patterns),
                "pub" => patterns(value).map(|patterns| rights.publ = patterns),
                "delay" => numbers(value, 0.0).and_then(|pairs| {
                    let names = pairs.iter().map(|(name, _)| &**name);
                    rights.delayed = Patterns::new(names).map_err(|(name, error)| format!("{name}: {error}"))?;
                    Ok(())
                }),
                "rate" => numbers(value, f64::MIN_POSITIVE).map(|pairs| rights.rates = pairs.into()),
                "modes" => words(value).and_then(|words| {
                    rights.latest_only = !latest_and_all(&words)?;
                    Ok(())
                }),
                "conns" => {
                    match integer(value).and_then(|number| u32::try_from(number).ok()).filter(|most| *most > 0) {
                        Some(most) => {
                            rights.conns = Some(most);
                            Ok(())
                        }
                        None => Err(format!("expected a number from 1 to {}", u32::MAX)),
                    }
                }
                "admin" => match value {
                    DeValue::Boolean(admin) => {
                        rights.admin = *admin;
                        Ok(())
                    }
                    _ => Err("expected true or false".into()),
                },
                name if beside.contains(&name) => Ok(()),
                _ => Err(format!(
                    "expected {}sub, pub, delay, rate, modes, conns or admin",
                    beside.iter().map(|name| format!("{name}, ")).collect::<String>()
                )),
            };
            if let Err(why) = taken {
                self.wrong(at, wrong(why));
            }
        }
        (self.mistakes.len() == before).then_some((rights, own))
    }
}

const EXPIRES: &str = "expected a moment like 2027-01-31T00:00:00Z";

/// The seconds since the Unix epoch at a moment as TOML has it; none for one without a date, a time and a zone.
fn seconds(moment: &str) -> Option<u64> {
    let zone = moment.rfind(['Z', 'z', '+']).or_else(|| moment.rfind('-')).filter(|at| *at > 10)?;
    let (there, zone) = moment.split_at(zone);
    let minutes = match zone {
        "Z" | "z" => 0,
        zone => {
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
            if zone.starts_with('-') { -minutes } else { minutes }
        }
    };
    let there = humantime::parse_rfc3339_weak(there).ok()?;
    there.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs().checked_add_signed(-60 * minutes)
}

fn words(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let word = |value: &DeValue<'_>| value.as_str().map(str::to_owned).ok_or("expected strings".to_owned());
    match value {
        DeValue::Array(values) => values.iter().map(|value| word(value.get_ref())).collect(),
        value => Ok(vec![word(value)?]),
    }
}

fn patterns(value: &DeValue<'_>) -> Result<Patterns, String> {
    let names = words(value)?;
    if names.len() > Patterns::MOST {
        return Err(format!("expected at most {} patterns, found {}", Patterns::MOST, names.len()));
    }
    Patterns::new(names.iter().map(String::as_str)).map_err(|(name, error)| format!("{name:.200}: {error}"))
}

/// A number for each of some patterns.
fn numbers(value: &DeValue<'_>, least: f64) -> Result<Vec<(Box<str>, f64)>, String> {
    let expected = "expected a number for each pattern, such as { \"q.>\" = 4 }";
    let DeValue::Table(table) = value else { return Err(expected.into()) };
    let mut pairs = Vec::new();
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        Patterns::new([name]).map_err(|(name, error)| format!("{name:.200}: {error}"))?;
        let number = match value.get_ref() {
            DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
            value => integer(value).map(|number| number as f64),
        };
        match number.filter(|number| number.is_finite() && *number >= least) {
            Some(number) => pairs.push((name.into(), number)),
            None => return Err(format!("{name}: {expected}, and more than 0")),
        }
    }
    Ok(pairs)
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    match value {
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
        _ => None,
    }
}

/// 64 hexadecimal digits.
fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        let digits = text.get(at..at + 2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(bytes)
}
