//! The page at `/`: three files that are part of the program, and may load nothing else.

use crate::http::Response;

/// Nothing but what this server serves, no inline script or style, and no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The file at this path.
pub(super) fn find(path: &str) -> Option<Response<'static>> {
    let (content_type, text) = match path {
        "/" => ("text/html; charset=utf-8", include_str!("page.html")),
        "/page.js" => ("text/javascript; charset=utf-8", include_str!("page.js")),
        "/page.css" => ("text/css; charset=utf-8", include_str!("page.css")),
        _ => return None,
    };
    let page = Response::new(200)
        .body(content_type, text.as_bytes())
        .header("Content-Security-Policy", POLICY)
        .header("X-Content-Type-Options", "nosniff")
        .header("Referrer-Policy", "no-referrer")
        .header("Cache-Control", "no-cache");
    Some(page)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_has_no_inline_script_or_style() {
        let html = include_str!("page.html");
        for way in ["<style", " style=", "<script>", " onclick=", " onload=", "javascript:"] {
            assert!(!html.contains(way), "the policy forbids {way}");
        }
    }

    #[test]
    fn data_never_becomes_markup() {
        let script = include_str!("page.js");
        for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!script.contains(way), "{way}");
        }
    }
}
