//! The console at `/`: files that are part of the program, and may load nothing else.
//!
//! No build step makes them: what is in `console/` is what a browser gets. `/stentor.js` is the JavaScript client, which is there for
//! other pages too.

use crate::http::Response;

/// Nothing but what this server serves, no inline script or style, and no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The JavaScript client.
const CLIENT: &str = "/stentor.js";

/// One file of the console.
#[derive(Clone, Copy, Debug)]
pub(super) struct File {
    /// Where it is served.
    pub path: &'static str,
    content_type: &'static str,
    /// What it says.
    pub text: &'static str,
}

const fn file(path: &'static str, content_type: &'static str, text: &'static str) -> File {
    File { path, content_type, text }
}

/// All of them.
pub(super) const FILES: [File; 21] = [
    file("/", HTML, include_str!("console/index.html")),
    file("/look.css", STYLE, include_str!("console/look.css")),
    file("/console.css", STYLE, include_str!("console/console.css")),
    file(CLIENT, SCRIPT, include_str!("console/stentor.js")),
    file("/console.js", SCRIPT, include_str!("console/console.js")),
    file("/anew.js", SCRIPT, include_str!("console/anew.js")),
    file("/chart.js", SCRIPT, include_str!("console/chart.js")),
    file("/distance.js", SCRIPT, include_str!("console/distance.js")),
    file("/follow.js", SCRIPT, include_str!("console/follow.js")),
    file("/format.js", SCRIPT, include_str!("console/format.js")),
    file("/gauges.js", SCRIPT, include_str!("console/gauges.js")),
    file("/plot.js", SCRIPT, include_str!("console/plot.js")),
    file("/prometheus.js", SCRIPT, include_str!("console/prometheus.js")),
    file("/publish.js", SCRIPT, include_str!("console/publish.js")),
    file("/raw.js", SCRIPT, include_str!("console/raw.js")),
    file("/slow.js", SCRIPT, include_str!("console/slow.js")),
    file("/status.js", SCRIPT, include_str!("console/status.js")),
    file("/subscribe.js", SCRIPT, include_str!("console/subscribe.js")),
    file("/table.js", SCRIPT, include_str!("console/table.js")),
    file("/topics.js", SCRIPT, include_str!("console/topics.js")),
    file("/value.js", SCRIPT, include_str!("console/value.js")),
];

/// The file at this path.
pub(super) fn find(path: &str) -> Option<Response<'static>> {
    let file = FILES.iter().find(|file| file.path == path)?;
    let page = Response::new(200)
        .body(file.content_type, file.text.as_bytes())
        .header("Content-Security-Policy", POLICY)
        .header("X-Content-Type-Options", "nosniff")
        .header("Referrer-Policy", "no-referrer")
        .header("Cache-Control", "no-cache");
    if file.path != CLIENT {
        return Some(page);
    }
    // Any page may import it, also one that asks for leave to embed each thing.
    Some(page.header("Access-Control-Allow-Origin", "*").header("Cross-Origin-Resource-Policy", "cross-origin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_no_inline_script_or_style() {
        for way in ["<style", " style=", "<script>", " onclick=", " onload=", "javascript:"] {
            assert!(!FILES[0].text.contains(way), "the policy forbids {way}");
        }
    }

    #[test]
    fn data_never_becomes_markup() {
        for file in FILES.iter().filter(|file| file.content_type == SCRIPT) {
            for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(!file.text.contains(way), "{}: {way}", file.path);
            }
        }
    }
}
