//! Settings that change at random moments of a script: every one that a reload may change, lower and higher.
//!
//! What a client was promised holds all the same: what it is subscribed to stays, who may publish may go on, nothing is lost
//! in silence. What a limit now ends or refuses is told, with the limit's name; `Reloaded` says which of that a client has
//! to expect.

use super::*;

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
    /// It came when nobody could publish without a token.
    pub mute: bool,
}

impl Reloaded {
    /// Both, but for what depends on when one came.
    fn and(self, other: Reloaded) -> Reloaded {
        let Reloaded { rates, lag, names, hasty, mute } = self;
        Reloaded {
            rates: rates | other.rates,
            lag: lag | other.lag,
            names: names | other.names,
            hasty: hasty | other.hasty,
            mute,
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
            origins: if random.bool() { vec!["https://ours.example".into()] } else { Vec::new() },
            token: random.bool().then(|| "s3cret".parse().unwrap()),
            open: random.bool(),
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
        self.reloaded.mute = !wanted.open;
        self.world.reloaded = true;
        self.world.shared.settings.set(wanted);
    }

    /// Tells the clients what they have to expect.
    pub(super) fn tell_reloaded(&mut self) {
        for client in &mut self.world.clients {
            let mute = client.reloaded.mute || (client.state == State::Asking && self.reloaded.mute);
            client.reloaded = Reloaded { mute, ..client.reloaded.and(self.reloaded) };
            client.overslept |= client.reloaded.hasty && client.pace.is_some();
        }
    }
}
