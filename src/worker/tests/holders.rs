//! Holders that come, expire, shrink, are revoked and refreshed, while they are behind, polled, streamed and resumed: promise 11, on every byte.
//!
//! They show tokens, at the beginning or later, or certificates, which give them topics by name or by patterns, of which some are within others and some lie across; they ask for names
//! and patterns, covered or not; and are there by `/ws`, in one mode or in several, `/raw`, `/sse`, `/poll` and `/history`, from the
//! newest values or from a cursor, their own or another's.
//!
//! Each payload is unlike any other, so whatever a client is given is found in its bytes, whole or in part, whichever way it came. When
//! rights end, the worker is let see to it, and all that has arrived by then is what was given before: from there on not a byte of a payload that isn't covered
//! any more may follow, until rights are given again. The clients' own view is kept simple: what they may, by topic, and since which byte not.

use jsonwebtoken::Algorithm;
use serde_json::json;

use super::*;
use crate::{
    access::{Revocation, Rules, sign::Signer},
    certified::{Certified, Id, TakenBack},
    config::Config,
    websocket::independent::Context,
};

/// How exactly a connection ends at its moment: timers have ticks of a tenth of a second, and are rounded up.
const GRAIN_US: u64 = 200_000;

const TOPICS: [&str; 3] = ["q.us.a", "q.us.b", "q.eu.a"];

/// Which of the topics.
type Mask = [bool; 3];

/// How a client is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Each topic in a mode.
    Ws([&'static str; 3]),
    Raw(usize, &'static str),
    Sse,
    Poll,
    History(usize),
}

impl Way {
    /// What is counted of it.
    fn index(self) -> usize {
        match self {
            Way::Ws(_) => 0,
            Way::Raw(..) => 1,
            Way::Sse => 2,
            Way::Poll => 3,
            Way::History(_) => 4,
        }
    }

    /// Whether it asks by requests, one after the other.
    fn asks(self) -> bool {
        matches!(self, Way::Poll | Way::History(_))
    }
}

/// Those that show tokens; the others have certificates: the first of them with the role, and both with what is theirs in the rights file.
const TOKENS: usize = 4;
const HOLDERS: usize = 6;

/// Those who sign certificates.
const AUTHORITIES: u8 = 3;

/// A client of some holder.
struct Shower {
    peer: Peer,
    way: Way,
    holder: usize,
    /// What it shows in a request; none of one with a certificate.
    token: Option<String>,
    /// The path of its certificate, and the authority that it leads to.
    certificate: Option<(Box<[Id]>, Id)>,
    is_quick: bool,
    /// What its token says, and the role that it names.
    own: Mask,
    role: bool,
    /// When that ends, leeway included.
    until_us: u64,
    is_revoked: bool,
    bytes: Vec<u8>,
    /// Of whom offers compression: what has come and is no whole frame yet, and the inflater for those that are.
    packed: Option<(Vec<u8>, Context)>,
    /// Since which byte it may not have something; none while it may.
    since: [Option<usize>; 3],
    /// The same in the past: from, and until when it was given back.
    before: Vec<(usize, usize, usize)>,
    /// Whether anything was covered when it lost it, so that there was something to keep from it.
    has_ended: bool,
}

/// What the script knows of payloads.
struct Payloads(Vec<(usize, String)>);

#[derive(Default, Debug)]
struct Outcomes {
    given: usize,
    shrunk: usize,
    expired: usize,
    revoked: usize,
    taken_back: usize,
    refreshed: usize,
    withheld: usize,
    behind: usize,
    /// Payloads that came by each way.
    by: [usize; 5],
    /// And to holders of certificates.
    certified: usize,
}

struct Script {
    world: World,
    rng: fastrand::Rng,
    signer: Signer,
    dir: tempfile::TempDir,
    role: Mask,
    /// What the rights file gives those with certificates.
    entries: [Mask; 2],
    /// Certificates and authorities that aren't good any more.
    taken_back: TakenBack,
    showers: Vec<Shower>,
    payloads: Payloads,
    outcomes: Outcomes,
    /// Streams are shared.
    shares: bool,
}

/// Under which streams are shared, by one alone too, or not.
fn with_streams(shares: bool) -> Settings {
    if !shares {
        return settings();
    }
    let mut random = fastrand::Rng::with_seed(1);
    let settings = every::share(settings(), &mut random);
    let streams = StreamSettings { most: 4, members_min: 1, private: Arc::default(), ..settings.compression.streams };
    Settings { compression: Compressing { streams, ..settings.compression }, ..settings }
}

fn names(mask: Mask) -> Vec<&'static str> {
    TOPICS.iter().zip(mask).filter(|(_, is_in)| *is_in).map(|(name, _)| *name).collect()
}

/// Names and patterns that stand for just these topics, of all that there are.
fn patterns(mask: Mask, rng: &mut fastrand::Rng) -> Vec<&'static str> {
    let ways: &[&[&str]] = match mask {
        [true, true, true] => &[&[">"], &["q.>"], &["q.*.*"], &["q.us.*", "q.eu.>"], &["q.*.a", "*.us.b"]],
        [true, true, false] => &[&["q.us.>"], &["q.us.*"], &["*.us.>"], &["q.us.*", "q.us.a"]],
        [true, false, true] => &[&["q.*.a"], &["*.*.a"], &["q.us.a", "q.eu.*"]],
        [false, true, true] => &[&["q.*.b", "q.eu.>"], &["q.us.b", "*.eu.a"]],
        [true, false, false] => &[&["*.us.a"]],
        [false, true, false] => &[&["q.*.b"], &["*.*.b"]],
        [false, false, true] => &[&["q.eu.>"], &["q.eu.*"], &["*.eu.a"]],
        [false, false, false] => &[],
    };
    match rng.usize(..2 * ways.len() + 1) {
        n if n < ways.len() => ways[n].to_vec(),
        _ => names(mask),
    }
}

fn command(json: &str) -> Vec<u8> {
    let head = match json.len() {
        len @ 0..126 => vec![0x81, 0x80 | len as u8],
        len => [&[0x81, 0x80 | 126][..], &(len as u16).to_be_bytes()].concat(),
    };
    [&head[..], &[0; 4], json.as_bytes()].concat()
}

impl Script {
    fn new(seed: u64) -> Script {
        let (signer, dir) = (Signer::make(Algorithm::HS256).unwrap().0, tempfile::tempdir().unwrap());
        std::fs::write(dir.path().join("keys"), signer.jwks()).unwrap();
        let mut script = Script {
            // Odd ones: no edge holds anything back, so that what has arrived is all that was given.
            world: World::new(2 * seed + 1, with_streams(seed % 2 == 1), 4096, 1 << 20),
            shares: seed % 2 == 1,
            rng: fastrand::Rng::with_seed(seed),
            signer,
            dir,
            role: [true; 3],
            entries: [[true; 3]; 2],
            taken_back: TakenBack::default(),
            showers: Vec::new(),
            payloads: Payloads(Vec::new()),
            outcomes: Outcomes::default(),
        };
        script.reload();
        script
    }

    /// Other rules, as a reload makes them.
    fn reload(&mut self) {
        let rng = &mut self.rng;
        let (role, [one, other]) = (patterns(self.role, rng), self.entries.map(|mask| patterns(mask, rng)));
        let rights = format!(
            "[roles.r]\nsub = {role:?}\n[certificates.u4]\nsub = {one:?}\nrole = \"r\"\n[certificates.u5]\nsub = {other:?}\n"
        );
        std::fs::write(self.dir.path().join("rights"), rights).unwrap();
        let config = Config {
            jwt_keys: Some(self.dir.path().join("keys")),
            rights: Some(self.dir.path().join("rights")),
            ..Config::default()
        };
        let wall_us = self.world.kernel.wall_us();
        let rules = Rules::read(&config, wall_us).unwrap().0;
        let access = rules.after(&self.world.shared.settings.get().access);
        self.world.shared.settings.set(Settings { access, ..with_streams(self.shares) });
        self.world.shared.publisher.wake_all();
    }

    fn mask(&mut self) -> Mask {
        [(); 3].map(|()| self.rng.u8(..3) > 0)
    }

    /// A token, and until when it is taken.
    fn token(&mut self, holder: usize, own: Mask, role: bool) -> (String, u64) {
        let exp = self.world.kernel.wall_us() / 1_000_000 + self.rng.u64(2..40);
        let mut stentor = json!({"sub": patterns(own, &mut self.rng)});
        if role {
            stentor["role"] = json!("r");
        }
        let claims = json!({"aud": "stentor", "sub": format!("u{holder}"), "exp": exp, "stentor": stentor});
        (self.signer.sign(&claims).unwrap(), (exp + 5) * 1_000_000)
    }

    fn way(&mut self) -> Way {
        let ways = ["", r#","mode":"latest""#, r#","mode":"latest","rate":4"#];
        match self.rng.u8(..9) {
            0 => Way::Sse,
            1 => Way::Poll,
            2 => Way::History(self.rng.usize(..3)),
            3 => Way::Raw(self.rng.usize(..3), ["", "?mode=latest", "?mode=latest&rate=4"][self.rng.usize(..3)]),
            4 => Way::Ws([(); 3].map(|()| ways[self.rng.usize(..3)])),
            n => Way::Ws([ways[usize::from(n) % 3]; 3]),
        }
    }

    fn come(&mut self) {
        let (holder, is_quick) = (self.rng.usize(..HOLDERS), self.rng.bool());
        let room = if is_quick { 100_000 } else { self.rng.usize(100..3000) };
        let way = self.way();
        let (own, role) = (self.mask(), if holder < TOKENS { self.rng.bool() } else { holder == TOKENS });
        let (peer, token, until_us, certificate) = if holder < TOKENS {
            let (token, until_us) = self.token(holder, own, role);
            (self.world.hand_over(room).0, Some(token), until_us, None)
        } else {
            let (name, expires) = (format!("u{holder}"), self.world.kernel.wall_us() / 1_000_000 + self.rng.u64(2..40));
            let (path, authority) = self.path();
            let certified = Certified { name, expires, path: path.clone(), authority };
            // What is encrypted is out of the worker's hands: so there is always room for it, and it has arrived.
            (self.world.hand_over_certified(1 << 20, certified), None, expires * 1_000_000, Some((path, authority)))
        };
        let mut shower = Shower {
            peer,
            way,
            holder,
            is_quick: is_quick || token.is_none(),
            token,
            certificate,
            own,
            role,
            until_us,
            is_revoked: false,
            bytes: Vec::new(),
            packed: (self.shares && matches!(way, Way::Ws(_))).then(|| (Vec::new(), Context::new(15))),
            since: [None; 3],
            before: Vec::new(),
            has_ended: false,
        };
        shower.since = self.may(&shower).map(|may| (!may).then_some(0));
        shower.is_revoked = self.is_revoked(holder) || shower.is_taken_back(&self.taken_back);
        if shower.is_revoked {
            shower.since = [Some(0); 3];
        }
        self.showers.push(shower);
        let at = self.showers.len() - 1;
        self.ask(at);
        self.subscribe(at);
    }

    /// A certificate of its own number, by one of a few in between, of one of a few authorities.
    fn path(&mut self) -> (Box<[Id]>, Id) {
        let (authority, between) = (self.rng.u8(..AUTHORITIES), self.rng.u8(..4));
        let own = Id::of_certificate(&[authority, between], &self.rng.u64(..).to_be_bytes());
        ([own, Id::of_certificate(&[authority], &[between])].into(), Id::of_authority(&[authority]))
    }

    /// Somebody's certificate is on a list from now on, or one that it is good by, or its authority is there no longer.
    fn take_back(&mut self) {
        let mut good = self.showers.iter().filter(|it| !it.is_revoked && !it.has_ended);
        let Some((path, authority)) = good.find_map(|it| it.certificate.clone()) else { return };
        if self.rng.u8(..4) == 0 {
            let all = || (0..AUTHORITIES).map(|n| Id::of_authority(&[n])).collect();
            self.taken_back.authorities.get_or_insert_with(all).remove(&authority);
        } else {
            self.taken_back.certificates.insert(path[self.rng.usize(..2)]);
        }
        let access = &self.world.shared.settings.get().access;
        access.revoked().set_certificates(Arc::new(self.taken_back.clone()));
        self.world.shared.publisher.wake_all();
        for shower in &mut self.showers {
            shower.is_revoked |= shower.is_taken_back(&self.taken_back);
        }
        self.outcomes.taken_back += 1;
        self.see_to();
    }

    /// A place on the tape that somebody was told of, now and then.
    fn cursor(&mut self) -> Option<String> {
        let at = self.rng.usize(..2 * self.showers.len());
        let text = String::from_utf8_lossy(&self.showers.get(at)?.bytes);
        let (word, _) = text.rsplit_once("\"cursor\":\"")?.1.split_once('"')?;
        Some(word.to_owned())
    }

    /// Sends a request. What isn't covered is asked for, too, now and then: all of it is refused then.
    fn ask(&mut self, at: usize) {
        let asked = if self.rng.u8(..4) == 0 { [true; 3] } else { self.may(&self.showers[at]) };
        let asked = patterns(asked, &mut self.rng).join(",").replace('>', "%3E");
        let from = self.cursor().map_or(String::new(), |cursor| format!("&cursor={cursor}"));
        let Shower { way, token, .. } = &self.showers[at];
        let path = match way {
            Way::Ws(_) => "/ws".to_owned(),
            Way::Raw(topic, how) => format!("/raw/{}{how}", TOPICS[*topic]),
            Way::Sse => format!("/sse?topics={asked}{from}"),
            Way::Poll => format!("/poll?topics={asked}&wait=20{from}"),
            Way::History(topic) => format!("/history/{}", TOPICS[*topic]),
        };
        let mut head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n");
        if matches!(way, Way::Ws(_) | Way::Raw(..)) {
            head += "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        }
        if self.showers[at].packed.is_some() {
            head += "Sec-WebSocket-Extensions: permessage-deflate\r\n";
        }
        let is_late = matches!(way, Way::Ws(_)) && self.rng.u8(..4) == 0;
        if let Some(token) = token.as_ref().filter(|_| !is_late) {
            head += &format!("Authorization: Bearer {token}\r\n");
        }
        let peer = &self.showers[at].peer;
        peer.write(format!("{head}\r\n").as_bytes());
        if let Some(token) = token.as_ref().filter(|_| is_late) {
            peer.write(&command(&json!({"op": "auth", "token": token}).to_string()));
        }
    }

    fn is_revoked(&self, holder: usize) -> bool {
        let access = &self.world.shared.settings.get().access;
        let key = crate::access::Key {
            source: crate::access::Source::Token,
            issuer: "".into(),
            name: format!("u{holder}").into(),
        };
        access.revoked().has(&key, None, self.world.kernel.wall_us() / 1_000_000)
    }

    fn may(&self, shower: &Shower) -> Mask {
        let is_over = shower.is_revoked || shower.until_us + GRAIN_US <= self.world.kernel.wall_us();
        let own = if shower.holder < TOKENS { shower.own } else { self.entries[shower.holder - TOKENS] };
        [0, 1, 2].map(|n| !is_over && (own[n] || shower.role && self.role[n]))
    }

    /// Asks for what it may have, with snapshots; from somewhere before, now and then.
    fn subscribe(&mut self, at: usize) {
        let all = if self.rng.u8(..6) == 0 { [true; 3] } else { self.may(&self.showers[at]) };
        let from = match self.cursor() {
            Some(cursor) => format!(r#","from":"{cursor}""#),
            None => String::new(),
        };
        let Way::Ws(ways) = self.showers[at].way else { return };
        let wanted = patterns(all, &mut self.rng);
        let ask = |topics: &str, way: &str| {
            self.showers[at].peer.write(&command(&format!(r#"{{"op":"sub","topics":[{topics}]{way}{from}}}"#)));
        };
        let quoted = |names: &[&str]| names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(",");
        if ways.iter().all(|way| *way == ways[0]) {
            return ask(&quoted(&wanted), ways[0]);
        }
        for n in (0..3).filter(|n| all[*n]) {
            ask(&quoted(&[TOPICS[n]]), ways[n]);
        }
    }

    fn publish(&mut self) {
        let topic = self.rng.usize(..3);
        for _ in 0..self.rng.usize(1..6) {
            let body = self.world.body(Kind::Json, self.rng.usize(..400));
            self.payloads.0.push((topic, String::from_utf8(body.bytes.clone()).unwrap()));
            self.world.publish(TOPICS[topic], vec![body]);
        }
    }

    fn refresh(&mut self) {
        let ways = self.showers.iter().enumerate();
        let ways = ways.filter(|(_, it)| matches!(it.way, Way::Ws(_)) && !it.has_ended && it.token.is_some());
        let all: Vec<usize> = ways.map(|(at, _)| at).collect();
        let Some(at) = self.rng.choice(all) else { return };
        let (own, role) = (self.mask(), self.rng.bool());
        let (token, until_us) = self.token(self.showers[at].holder, own, role);
        let before = self.may(&self.showers[at]);
        self.outcomes.refreshed += 1;
        let id = 70_000 + self.outcomes.refreshed;
        self.showers[at].peer.write(&command(&json!({"op": "auth", "id": id, "token": token}).to_string()));
        (self.showers[at].own, self.showers[at].role, self.showers[at].until_us) = (own, role, until_us);
        // What is given may come from now on.
        let may = self.may(&self.showers[at]);
        let shower = &mut self.showers[at];
        for topic in 0..3 {
            if may[topic]
                && !before[topic]
                && let Some(since) = shower.since[topic].take()
            {
                shower.before.push((topic, since, shower.bytes.len()));
            }
        }
        // What it had to be sent before may be in the way of its command; what comes before the answer is of before.
        let (id, from) = (format!("\"id\":{id}"), self.showers[at].bytes.len());
        for _ in 0..20 {
            (0..40).for_each(|_| self.world.turn_of(0));
            let shower = &mut self.showers[at];
            shower.read(usize::MAX);
            if shower.has_ended || memchr::memmem::find(&shower.bytes[from..], id.as_bytes()).is_some() {
                break;
            }
        }
        self.see_to();
        self.subscribe(at);
    }

    /// The worker is let see to what has changed; from then on nobody is given what it lost.
    fn see_to(&mut self) {
        for _ in 0..40 {
            self.world.turn_of(0);
        }
        for at in 0..self.showers.len() {
            let may = self.may(&self.showers[at]);
            let shower = &mut self.showers[at];
            self.outcomes.behind += usize::from(shower.peer.arrived() > 1000);
            // No turn passes meanwhile.
            shower.read(usize::MAX);
            for (since, _) in shower.since.iter_mut().zip(may).filter(|(since, may)| !may && since.is_none()) {
                *since = Some(shower.bytes.len());
                self.outcomes.withheld += 1;
            }
        }
    }

    fn read(&mut self) {
        for _ in 0..3 {
            self.world.settle();
            for shower in &mut self.showers {
                let most = if shower.is_quick { usize::MAX } else { self.rng.usize(..300) };
                shower.read(most);
            }
        }
    }

    /// Time passes, to the moment at which somebody's rights end if there is one.
    fn pass(&mut self) {
        let wall_us = self.world.kernel.wall_us();
        let next = self.showers.iter().map(|it| it.until_us + GRAIN_US).filter(|until| *until > wall_us).min();
        let length = Duration::from_millis(self.rng.u64(1..6000));
        let until = next.map(|until| Duration::from_micros(until - wall_us)).filter(|until| *until <= length);
        self.world.pass(until.unwrap_or(length));
        if until.is_some() {
            self.outcomes.expired += 1;
        }
        self.see_to();
    }

    fn step(&mut self) {
        match self.rng.u8(..16) {
            0 | 1 => self.come(),
            2..7 => self.publish(),
            7..9 => self.read(),
            9 => self.world.settle(),
            10 | 11 => self.pass(),
            12 | 13 => self.refresh(),
            14 => {
                let before = self.role;
                self.role = self.mask();
                self.entries = [self.mask(), self.mask()];
                // What is given may come from now on.
                for at in 0..self.showers.len() {
                    let may = self.may(&self.showers[at]);
                    let shower = &mut self.showers[at];
                    for topic in (0..3).filter(|topic| may[*topic]) {
                        if let Some(since) = shower.since[topic].take() {
                            shower.before.push((topic, since, shower.bytes.len()));
                        }
                    }
                }
                self.reload();
                self.outcomes.shrunk += usize::from(before != self.role);
                self.see_to();
            }
            _ if self.rng.u8(..4) == 0 => self.take_back(),
            _ if self.rng.u8(..3) == 0 => {
                let holder = self.rng.usize(..HOLDERS);
                let until = self.world.kernel.wall_us() / 1_000_000 + self.rng.u64(1000..2000);
                let one =
                    Revocation::parse(&json!({"sub": format!("u{holder}"), "until": until}).to_string(), 0).unwrap();
                let access = &self.world.shared.settings.get().access;
                access.revoke(&one, self.world.kernel.wall_us()).unwrap();
                self.world.shared.publisher.wake_all();
                self.showers.iter_mut().filter(|it| it.holder == holder).for_each(|it| it.is_revoked = true);
                self.outcomes.revoked += 1;
                self.see_to();
            }
            _ => {
                let at = self.rng.usize(..self.showers.len().max(1));
                if at >= self.showers.len() {
                    return;
                }
                if self.showers[at].way.asks() {
                    self.ask(at);
                } else {
                    self.subscribe(at);
                }
            }
        }
    }

    fn run(mut self) -> Outcomes {
        self.come();
        for _ in 0..self.rng.usize(10..60) {
            self.step();
        }
        self.world.pass(Duration::from_secs(60));
        self.see_to();
        self.publish();
        self.read();
        self.world.pass(Duration::from_secs(10));
        for shower in &mut self.showers {
            shower.read(usize::MAX);
        }
        for shower in &self.showers {
            let given = shower.check(&self.payloads);
            self.outcomes.given += given;
            self.outcomes.by[shower.way.index()] += given;
            self.outcomes.certified += if shower.holder < TOKENS { 0 } else { given };
            let is_stream = memchr::memmem::find(&shower.bytes, b"text/event-stream").is_some();
            if matches!(shower.way, Way::Ws(_) | Way::Raw(..)) || is_stream {
                assert!(
                    shower.peer.dropped(),
                    "every token has expired by now: {:?} of u{}",
                    shower.way,
                    shower.holder
                );
            }
        }
        self.outcomes
    }
}

/// Appends the first frame of `input` as it was before it was compressed, or the head before all frames. Returns its length; none if there is none.
fn inflate_one(input: &[u8], context: &mut Context, out: &mut Vec<u8>) -> Option<usize> {
    if input.starts_with(b"HTTP/") {
        let end = memchr::memmem::find(input, b"\r\n\r\n")? + 4;
        out.extend_from_slice(&input[..end]);
        return Some(end);
    }
    let (len, at) = match *input.get(1)? {
        len @ 0..126 => (usize::from(len), 2),
        126 => (usize::from(u16::from_be_bytes(input.get(2..4)?.try_into().unwrap())), 4),
        _ => (u64::from_be_bytes(input.get(2..10)?.try_into().unwrap()) as usize, 10),
    };
    let payload = input.get(at..at + len)?;
    if input[0] & 0x40 == 0 {
        out.extend_from_slice(payload);
    } else {
        let message = context.message(payload).expect("a message of deflate behind those before it");
        serde_json::from_slice::<serde_json::Value>(&message).expect("it is what was compressed");
        out.extend_from_slice(&message);
    }
    Some(at + len)
}

impl Shower {
    fn is_taken_back(&self, taken_back: &TakenBack) -> bool {
        self.certificate.as_ref().is_some_and(|(path, authority)| taken_back.has(path, authority))
    }

    fn read(&mut self, most: usize) {
        let came = self.peer.read(most);
        match &mut self.packed {
            None => self.bytes.extend_from_slice(&came),
            Some((input, context)) => {
                input.extend_from_slice(&came);
                while let Some(len) = inflate_one(input, context, &mut self.bytes) {
                    input.drain(..len);
                }
            }
        }
        self.has_ended |= self.peer.dropped();
    }

    /// Looks for every payload among its bytes. Returns how many it was given.
    fn check(&self, payloads: &Payloads) -> usize {
        let mut given = 0;
        for (topic, payload) in &payloads.0 {
            let payload = payload.as_bytes();
            // Enough to tell it from all others.
            let sign = &payload[..payload.iter().position(|byte| *byte == b',').unwrap() + 1];
            for start in memchr::memmem::find_iter(&self.bytes, sign) {
                let same = self.bytes[start..].iter().zip(payload).take_while(|(a, b)| a == b).count();
                let (first, last) = (start, start + same);
                let of_topic =
                    self.before.iter().filter(|(other, ..)| other == topic).map(|(_, from, to)| (*from, *to));
                let now = self.since[*topic].map(|since| (since, usize::MAX));
                for (from, to) in of_topic.chain(now) {
                    assert!(
                        last <= from || first >= to,
                        "{:?} of u{} was given bytes {first} to {last} of {}: {}, which it might not have from {from} to {to}",
                        self.way,
                        self.holder,
                        TOPICS[*topic],
                        String::from_utf8_lossy(&self.bytes[start..last.min(start + 60)])
                    );
                }
                given += 1;
            }
        }
        given
    }
}

#[test]
fn nobody_is_given_a_byte_that_its_rights_do_not_cover() {
    let mut all = Outcomes::default();
    let mut try_one = |seed: u64| {
        let one = Script::new(seed).run();
        all.given += one.given;
        all.shrunk += one.shrunk;
        all.expired += one.expired;
        all.revoked += one.revoked;
        all.taken_back += one.taken_back;
        all.refreshed += one.refreshed;
        all.withheld += one.withheld;
        all.behind += one.behind;
        all.certified += one.certified;
        all.by.iter_mut().zip(one.by).for_each(|(all, one)| *all += one);
    };
    if let Ok(seed) = std::env::var("STENTOR_SEED") {
        return try_one(seed.parse().unwrap());
    }
    let seeds = seeds::wanted(SEEDS) / 4;
    for seed in 0..seeds {
        let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| try_one(seed)));
        if let Err(panic) = tried {
            eprintln!("the script that failed: STENTOR_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
    // Else the scripts have become too tame to find anything.
    let least = seeds as usize;
    let Outcomes { given, shrunk, expired, revoked, taken_back, refreshed, withheld, behind, by, certified } = all;
    assert!([shrunk, expired, refreshed, withheld, behind].iter().all(|count| *count >= least / 4), "{all:?}");
    assert!(given >= 10 * least && revoked >= least / 8 && taken_back >= least / 16, "{all:?}");
    assert!(by.iter().all(|given| *given >= least / 4) && certified >= least, "{all:?}");
}
