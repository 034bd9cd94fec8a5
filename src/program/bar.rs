//! How far a replay has come: a bar on the terminal, or nothing where standard error is none or the file's length is not known.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The bar, from the first word about it until it is dropped.
#[derive(Default)]
pub(super) struct Bar(Option<ProgressBar>);

impl Bar {
    /// What a replay is given to tell how many of how many bytes it has taken.
    pub(super) fn draw(mut self) -> impl FnMut(u64, u64) + Send + 'static {
        move |taken, of| {
            let bar = self.0.get_or_insert_with(|| bar(of));
            // It counts the time from here on, and is not drawn before there is something to show.
            if taken > 0 {
                bar.set_position(taken);
            }
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

fn bar(file_len: u64) -> ProgressBar {
    if file_len == 0 || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("replay {wide_bar} {percent:>3} %  {bytes} of {total_bytes}  {elapsed}");
    let bar = ProgressBar::with_draw_target(Some(file_len), ProgressDrawTarget::stderr_with_hz(5));
    bar.with_style(style.expect("the template is fixed"))
}
