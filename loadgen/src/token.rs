//! The token that a server wants to see before it lets somebody subscribe or publish.
//!
//! It comes from a file (`--token-file`), or from the environment, as `stentor sub` and `pub` take it: never from the command line, which everybody on
//! the machine can read while a run lasts, and which is kept with the run's result. What is kept is where it came from. Each process of a run reads
//! it for itself.
//!
//! That of the environment is for servers that speak Stentor's protocols: others are not sent what is none of theirs.

use std::{fs, io::Read, path::Path};

use anyhow::{Context, Result, ensure};

/// The environment variable that holds it where no file does.
pub const VARIABLE: &str = "STENTOR_TOKEN";

/// As much as a file may have: several times what a server takes.
const BYTES_MAX: u64 = 64 * 1024;

/// The token of a file; without one, what the environment has, if anything.
///
/// # Errors
/// The file can't be read, or what is to be the token is none.
pub fn find(file: Option<&Path>, variable: Option<String>) -> Result<Option<String>> {
    match (file, variable.filter(|token| !token.is_empty())) {
        (Some(path), _) => of_file(path).with_context(|| format!("--token-file {}", path.display())).map(Some),
        (None, Some(token)) => {
            check(&token).context(VARIABLE)?;
            Ok(Some(token))
        }
        (None, None) => Ok(None),
    }
}

/// The line of a request that shows it.
pub fn header(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

/// Whether a line of a request shows something already.
pub fn is_shown_by(line: &str) -> bool {
    line.split_once(':').is_some_and(|(name, _)| name.trim().eq_ignore_ascii_case("authorization"))
}

fn of_file(path: &Path) -> Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    ensure!(text.len() as u64 <= BYTES_MAX, "expected a token, found more than {BYTES_MAX} bytes");
    let token = text.trim_end_matches(['\r', '\n']);
    check(token)?;
    Ok(token.to_owned())
}

/// What is said of it never has it in.
fn check(token: &str) -> Result<()> {
    let is_word = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    ensure!(is_word, "expected one word of visible ASCII, found something else");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_goes_before_the_environment_and_the_end_of_its_line_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "of.a.file\r\n").unwrap();
        let both = find(Some(&path), Some("variable".into())).unwrap();
        assert_eq!(both.as_deref(), Some("of.a.file"));
        assert_eq!(find(None, Some("variable".into())).unwrap().as_deref(), Some("variable"));
        assert_eq!(find(None, Some(String::new())).unwrap(), None);
        assert_eq!(find(None, None).unwrap(), None);
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for text in ["", "\n", "two words", "s3cret\r\nX-More: 1", "sécret", &"s".repeat(70_000)] {
            fs::write(&path, text).unwrap();
            let error = format!("{:#}", find(Some(&path), None).unwrap_err());
            assert!(error.contains("--token-file ") && !error.contains("cret"), "{error}");
        }
        let error = format!("{:#}", find(None, Some("s3cret\nX-More: 1".into())).unwrap_err());
        assert!(error.starts_with(VARIABLE) && !error.contains("s3cret"), "{error}");
        assert!(format!("{:#}", find(Some(&folder.path().join("none")), None).unwrap_err()).contains("none"));
    }

    #[test]
    fn another_line_that_shows_something_is_known() {
        assert!(is_shown_by("authorization: Basic x") && is_shown_by(&header("x")));
        assert!(!is_shown_by("X-Authorization: x") && !is_shown_by("Authorization"));
    }
}
