//! stub
use crate::{config::Config, handover::*, io::epoll::Epoll, limits::Limits, tape::Tape, worker::Shared};
use crossbeam_channel::Receiver;
use rustix::fd::OwnedFd;
use std::sync::{Arc, atomic::AtomicBool};
pub(crate) struct ControlSettings;
impl ControlSettings {
    pub fn new(_: &Config) -> Self {
        Self
    }
}
#[allow(dead_code)]
pub(crate) struct Context {
    pub shared: Arc<Shared>,
    pub tape: Tape,
    pub limits: Arc<Limits>,
    pub settings: ControlSettings,
    pub workers: Vec<Inbox<OwnedFd>>,
    pub ready: Arc<AtomicBool>,
}
pub(crate) struct Control(Receiver<Message<OwnedFd>>);
impl Control {
    pub fn new(_: Context, _: Epoll, r: Receiver<Message<OwnedFd>>) -> Self {
        Control(r)
    }
    pub fn run(self) {
        while let Ok(m) = self.0.recv() {
            if let Message::Drain { .. } = m {
                return;
            }
        }
    }
}
