//! Settings that change at random moments of a script: every one that a reload may change, lower and higher.
//!
//! What a client was promised holds all the same: what it is subscribed to stays, nothing is lost
//! in silence. What a limit now ends or refuses is told, with the limit's name; `Reloaded` says which of that a client has
//! to expect.

use super::*;
use crate::worker::reload_script::{Party, Said, Step, Wanted};

/// What has been asked for at some time, and may still be in force for somebody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reloaded {
    /// Commands or publications were limited: 4003.
    pub rates: bool,
    /// How far behind one may be was limited: 4100.
    pub lag: bool,
    /// Names were limited below what a client asks for at once.
    pub names: bool,
    /// Closing may take less time than before: too little for whoever reads slowly.
    pub hasty: bool,
    /// Nobody can publish without a token, whenever he came.
    pub mute: bool,
}

impl Reloaded {
    /// Both, and of what holds for the moment, the other.
    fn and(self, other: Reloaded) -> Reloaded {
        let Reloaded { rates, lag, names, hasty, mute: _ } = self;
        Reloaded {
            rates: rates | other.rates,
            lag: lag | other.lag,
            names: names | other.names,
            hasty: hasty | other.hasty,
            mute: other.mute,
        }
    }
}

impl Script {
    /// Changes every setting that can change.
    pub(super) fn reload(&mut self) {
        let random = &mut self.random;
        let seconds = |random: &mut fastrand::Rng, from: u64, to: u64| Duration::from_secs(random.u64(from..to));
        let rate = |random: &mut fastrand::Rng| match random.u8(..3) {
            0 => ["0.00028", "2/s", "1000M/s"][random.usize(..3)].parse().unwrap(),
            _ => RateLimit::NONE,
        };
        let limits = [rate(random), rate(random)];
        let flush_interval = Duration::from_millis(if random.bool() { random.u64(..50) } else { 0 });
        let now = self.world.shared.settings.get();
        // What is on its way would be refused as well; when nobody is there to say what, it is not told apart from lost.
        let is_under_way = |client: &Client| client.state != State::Left && !client.publishing.is_empty();
        let is_quiet = !self.world.clients.iter().any(is_under_way);
        let is_open;
        let wanted = Settings {
            pending_max: if self.tight { random.usize(1000..6000) } else { random.usize(1 << 16..1 << 20) },
            subscriptions_max: if random.bool() { random.usize(1..6) } else { 1024 },
            commands: Quota::new(limits[0]),
            publications: Quota::new(limits[1]),
            slow_list: random.usize(..5),
            flush_interval,
            turn_sends: [1, random.usize(1..6), 1_000_000][random.usize(..3)],
            owed_max: now.owed_max,
            lag_limit: if random.u8(..4) == 0 { random.u64(1..5000) } else { 0 },
            lag_limit_age: if random.u8(..4) == 0 { seconds(random, 1, 20) } else { Duration::ZERO },
            handshake_timeout: seconds(random, 1, 15),
            heartbeat: if random.bool() { seconds(random, 1, 20) } else { Duration::ZERO },
            idle_timeout: if random.bool() { seconds(random, 6, 90) } else { Duration::ZERO },
            close_timeout: seconds(random, 1, 10),
            drain_timeout: seconds(random, 1, 20),
            access: {
                let origins = if random.bool() { vec!["https://ours.example".parse().unwrap()] } else { Vec::new() };
                let secret = random.bool().then(|| "s3cret".parse().unwrap());
                is_open = random.bool() || !is_quiet;
                Rules::new(secret, origins, is_open)
            },
            compression: Compressing { is_shared: now.compression.is_shared, ..settings().compression },
            ..settings()
        };
        self.flush_interval = self.flush_interval.max(flush_interval);
        self.reloaded = self.reloaded.and(Reloaded {
            rates: limits != [RateLimit::NONE; 2],
            lag: wanted.lag_limit > 0 || !wanted.lag_limit_age.is_zero(),
            names: wanted.subscriptions_max < 1024,
            hasty: wanted.close_timeout < settings().close_timeout,
            mute: false,
        });
        self.reloaded.mute = !is_open;
        self.world.reloaded = true;
        self.world.shared.settings.set(wanted);
    }

    /// Tells the clients what they have to expect.
    pub(super) fn tell_reloaded(&mut self) {
        for poller in &mut self.world.pollers {
            poller.lenient |= self.world.reloaded;
        }
        for client in &mut self.world.clients {
            client.reloaded = client.reloaded.and(self.reloaded);
            client.overslept |= client.reloaded.hasty && client.pace.is_some();
        }
    }
}

/// The same with values as far from each other as an operator could give them (`worker/reload_script.rs`).
#[test]
fn no_value_of_any_setting_and_no_command_ends_a_worker_or_takes_what_it_has_acknowledged() {
    let (seeds, mut stayed) = (seeds::wanted(SEEDS) / 10, 0);
    for seed in 0..seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut party = Party::new(seed);
        for _ in 0..random.usize(..60) {
            party.take(party_step(&mut random));
        }
        stayed += party.end();
    }
    assert!(stayed as u64 >= seeds, "hardly anybody has stayed: {stayed}");
}

fn party_step(random: &mut fastrand::Rng) -> Step {
    match random.u8(..16) {
        0..3 => Step::Connect(random.u8(..), random.u16(..)),
        3..10 => Step::Say(random.u8(..), party_said(random)),
        10 => Step::End(random.u8(..)),
        11..15 => {
            let mut any = || match random.u8(..8) {
                0..2 => random.u64(..6),
                2 => random.u64(..256),
                3 => random.u64(..256) * 1_000_000_000,
                4 => random.u64(..1 << 24),
                5 => u64::MAX - random.u64(..256),
                _ => random.u64(..),
            };
            let (counts, sizes, times) = ([(); 5].map(|()| any()), [(); 2].map(|()| any()), [(); 7].map(|()| any()));
            let rates = [(); 2].map(|()| party_double(random));
            let switches = [(); 3].map(|()| random.bool());
            Step::Reload(Box::new(Wanted { rates, counts, sizes, times, switches }))
        }
        _ => Step::Pass(random.u8(..100)),
    }
}

fn party_said(random: &mut fastrand::Rng) -> Said {
    match random.u8(..10) {
        0..4 => Said::Sub {
            names: random.u8(..),
            rate: random.bool().then(|| party_double(random)),
            latest: random.bool(),
            snapshot: random.bool(),
            from: random.bool().then(|| random.u64(..)),
        },
        4 => Said::Unsub(random.u8(..)),
        5 => Said::List,
        6 => Said::Ping,
        7 => Said::Pub(random.u8(..), random.u8(..)),
        8 => Said::Text(r#"{"op":"unsub","topics":["a","b","a.b"]}"#.into()),
        _ => Said::Auth(random.bool()),
    }
}

fn party_double(random: &mut fastrand::Rng) -> u64 {
    if random.bool() { f64::from(random.u16(..)).to_bits() } else { random.u64(..) }
}

/// Replaces some settings of a running world.
fn change(world: &World, settings: Settings) {
    world.shared.settings.set(settings);
}

#[test]
fn an_idle_timeout_that_is_lowered_leaves_time_to_answer_the_ping() {
    let quiet =
        |seconds| Settings { idle_timeout: Duration::from_secs(seconds), heartbeat: Duration::ZERO, ..settings() };
    let mut world = plain(quiet(60));
    let at = world.subscriber(100_000, &[]);
    world.pass(Duration::from_secs(25));
    change(&world, quiet(6));
    world.pass(Duration::from_secs(40));
    assert_eq!(world.clients[at].state, State::Open);
}

#[test]
fn a_slow_list_that_is_switched_off_shows_nobody() {
    let mut world = plain(settings());
    let at = world.subscriber(60, &["q"]);
    world.clients[at].stalled = true;
    world.publish_some("q", 5, 100);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.shared.slow.all().len(), 1);
    change(&world, Settings { slow_list: 0, ..settings() });
    world.pass(Duration::from_secs(3));
    assert_eq!(world.shared.slow.all().len(), 0);
}
