//! The terminal: raw, on its other screen, and given back as it was, whatever ends the program.

use std::{
    io::{self, Stdout, Write, stdout},
    panic,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use crossterm::{
    cursor::{Hide, MoveTo, Show},
    event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
    execute, queue,
    style::{Attribute, Print, SetAttribute},
    terminal::{
        self, BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
        LeaveAlternateScreen,
    },
};
use rustix::process::{Signal, kill_current_process_group};

use super::{
    end,
    view::{Style, View},
};

/// How long to wait for a key before it is looked whether anything else has happened.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Whether the terminal was given back and taken again since the last frame.
static IS_BACK: AtomicBool = AtomicBool::new(false);

/// The last line.
const KEYS: &str = "q quit   ← → column to sort by   r reverse   space pause";

/// What somebody at the keyboard wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Quit,
    Pause,
    Next,
    Previous,
    Reverse,
    /// To stop, as the key for that does where a terminal isn't raw.
    Stop,
    /// The terminal has another size, or was somebody else's for a while.
    Draw,
}

/// The terminal while it is ours. Dropping it gives it back.
pub(super) struct Screen {
    out: Stdout,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// It can't be made raw, or there is no keyboard.
    pub fn open() -> io::Result<Screen> {
        end::watch(give_back, take_back)?;
        terminal::enable_raw_mode()?;
        let mut screen = Screen { out: stdout() };
        // Where a panic aborts, nothing is dropped.
        let earlier = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            give_back();
            earlier(panic);
        }));
        execute!(screen.out, EnterAlternateScreen, Hide)?;
        Ok(screen)
    }

    /// Draws a frame over the last one: each line and the rest of its row, shown all at once where the terminal can.
    pub fn draw(&mut self, view: &View) -> io::Result<()> {
        let _held = end::DRAWING.lock();
        if IS_BACK.swap(false, Ordering::Relaxed) {
            queue!(self.out, EnterAlternateScreen, Hide, Clear(ClearType::All))?;
        }
        let (columns, rows) = terminal::size()?;
        let height = usize::from(rows).saturating_sub(1);
        queue!(self.out, BeginSynchronizedUpdate)?;
        let lines = view.lines(columns.into(), height);
        for (row, line) in (0..rows).zip(&lines) {
            queue!(self.out, MoveTo(0, row))?;
            match line.style {
                Style::Plain => {}
                Style::Bold => queue!(self.out, SetAttribute(Attribute::Bold))?,
                Style::Heading | Style::Alarm => queue!(self.out, SetAttribute(Attribute::Reverse))?,
            }
            queue!(self.out, Print(&line.text), SetAttribute(Attribute::Reset), Clear(ClearType::UntilNewLine))?;
        }
        let keys: String = KEYS.chars().take(columns.into()).collect();
        queue!(self.out, MoveTo(0, lines.len() as u16), Clear(ClearType::FromCursorDown), MoveTo(0, rows.max(1) - 1))?;
        queue!(self.out, SetAttribute(Attribute::Dim), Print(keys), SetAttribute(Attribute::Reset))?;
        queue!(self.out, EndSynchronizedUpdate)?;
        self.out.flush()
    }

    /// What was asked for by key within a moment; None if nothing was.
    pub fn asked(&mut self) -> io::Result<Option<Asked>> {
        if !event::poll(LOOK_EVERY)? {
            return Ok(IS_BACK.load(Ordering::Relaxed).then_some(Asked::Draw));
        }
        Ok(match event::read()? {
            Event::Key(key) if key.kind != KeyEventKind::Release => meaning(key),
            Event::Resize(..) => Some(Asked::Draw),
            _ => None,
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Stops every program that was started together with this one, as a terminal would: this one too, by the signal.
pub(super) fn stop() {
    let _ = kill_current_process_group(Signal::TSTP);
}

/// Makes the terminal raw again: what it was before is what whoever had it meanwhile has left. The rest is done with the next frame.
fn take_back() {
    let _ = terminal::disable_raw_mode();
    let _ = terminal::enable_raw_mode();
    IS_BACK.store(true, Ordering::Relaxed);
}

/// The mode first: that waits for nobody, as a terminal that was stopped may have a write wait.
fn give_back() {
    let _ = terminal::disable_raw_mode();
    let _ = execute!(stdout(), EndSynchronizedUpdate, SetAttribute(Attribute::Reset), Show, LeaveAlternateScreen);
}

fn meaning(key: KeyEvent) -> Option<Asked> {
    match key.code {
        // A raw terminal makes no signal of it.
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Asked::Quit),
        KeyCode::Char('z') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Asked::Stop),
        KeyCode::Char('q') | KeyCode::Esc => Some(Asked::Quit),
        KeyCode::Char(' ') => Some(Asked::Pause),
        KeyCode::Char('r') => Some(Asked::Reverse),
        KeyCode::Right | KeyCode::Char('>') => Some(Asked::Next),
        KeyCode::Left | KeyCode::Char('<') => Some(Asked::Previous),
        _ => None,
    }
}
