//! What the manifest says is held against what is so.

use std::process::Command;

use serde_json::Value;

/// `1.88` and `1.88.0` are the same.
fn version(text: &str) -> Vec<u32> {
    let mut numbers: Vec<u32> = text.split('.').map(|number| number.parse().unwrap()).collect();
    numbers.resize(3, 0);
    numbers
}

/// Cargo refuses a dependency that wants a newer compiler than the one there is; but not one that wants a newer one than
/// we say is enough.
#[test]
fn no_dependency_wants_a_newer_compiler_than_rust_version_says() {
    let rustc = Command::new("rustc").arg("-vV").output().unwrap();
    let host = String::from_utf8(rustc.stdout).unwrap();
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let output = Command::new(env!("CARGO"))
        // What is built here is on this machine already.
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let used = |package: &&Value| nodes.iter().any(|node| node["id"] == package["id"]);
    let ours = env!("CARGO_PKG_RUST_VERSION");
    let mut newer = Vec::new();
    for package in packages.iter().filter(used) {
        if let Some(wanted) = package["rust_version"].as_str().filter(|wanted| version(wanted) > version(ours)) {
            newer.push(format!("{} {} wants {wanted}", package["name"], package["version"]));
        }
    }
    assert!(nodes.len() > 100);
    assert!(newer.is_empty(), "rust-version is {ours}, but {}", newer.join(", "));
}
