//! What the program says of itself without starting: `--check`, `--completions`, `--man`.

use std::{
    fs::{self, File as Opened},
    net::TcpListener,
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::{
    client::serve,
    process::{run, stentor},
    reload::File,
    skip::skip,
};

fn said(args: &[&str]) -> (Option<i32>, String) {
    let output = run(args);
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn check_prints_what_would_happen_and_exits_with_0() {
    let file = File::new("retain = '8MiB'\npublish-token = 's3cret'\n");
    let args =
        ["--check", "--config", file.path(), "--listen", "127.0.0.1:0", "--workers", "1", "--max-connections", "100"];
    let (code, text) = said(&args);
    assert_eq!(code, Some(0), "{text}");
    for part in [
        &format!("retain = \"8MiB\"  # file {}:1\n", file.path())[..],
        "workers = 1  # flag\n",
        "publish-token = (hidden)  # file ",
        "note: would listen on 127.0.0.1:0",
        "note: publishing needs the token\n",
        "1 worker, pinned to core ",
        "; 1 acceptor for each address\n",
        "tape at most 8.0 MiB",
        "for --max-connections 100\n",
        "\nIt would start.\n",
    ] {
        assert!(text.contains(part), "{part:?}: {text}");
    }
    assert!(!text.contains("s3cret"));
}

#[test]
fn check_names_everything_that_would_keep_it_from_starting_and_exits_with_1() {
    let args = [
        "--check",
        "--listen",
        "192.0.2.1:1",
        "--pin",
        "4000",
        "--replay",
        "/no/such/file",
        "--max-connections",
        "2000000000",
        "--retain",
        "1MiB",
        "--segment",
        "1MiB",
    ];
    let (code, text) = said(&args);
    assert_eq!(code, Some(1), "{text}");
    for part in [
        "error: --listen 192.0.2.1:1: ",
        "error: --pin 4000: ",
        "error: --replay /no/such/file",
        "error: --max-connections 2000000000 needs ",
        "error: --retain 1.0 MiB",
        "\nIt would not start.\n",
    ] {
        assert!(text.contains(part), "{part:?}: {text}");
    }
}

#[test]
fn addresses_are_taken_and_shown_as_people_write_them() {
    let file = File::new("listen = [0]\n");
    let (code, text) = said(&["--check", "--config", file.path()]);
    assert!(code == Some(0) && text.contains("note: would listen on 127.0.0.1:0: "), "{text}");
    let (code, text) = said(&["--check", "--listen", "[::ffff:127.0.0.1]:0"]);
    assert!(code == Some(0) && text.contains("note: would listen on 127.0.0.1:0: "), "{text}");
    // There is no such address on it; whether there is IPv6 or not, it is said where.
    let (code, text) = said(&["--check", "--listen", "[fe80::1%lo]:0"]);
    assert!(code == Some(1) && text.contains("error: --listen [fe80::1%lo]:0: "), "{text}");
    let server = serve(|config| config.listen = vec!["[::ffff:127.0.0.1]:0".parse().unwrap()].into());
    assert!(server.addresses()[0].is_ipv4());
}

#[test]
fn who_does_not_read_what_is_printed_is_told_by_the_code_all_the_same() {
    let server = serve(|_| {});
    let url = server.addresses()[0].to_string();
    // A pipe whose other end is closed, as that of `| true` and `| head` is soon.
    let closed = || Stdio::from(std::io::pipe().unwrap().1);
    let full = || Stdio::from(Opened::options().write(true).open("/dev/full").unwrap());
    for (args, code) in [
        (&["--check", "--listen", "127.0.0.1:0"][..], 0),
        (&["--check", "--listen", "127.0.0.1:0", "--max-message", "2MiB", "--segment", "1MiB"], 1),
        (&["--print-config"], 0),
        (&["--man"], 0),
        (&["--completions", "bash"], 0),
        (&["--help"], 0),
        (&["-h"], 0),
        (&["--version"], 0),
        (&["top", "--once", "--interval", "250ms", &url], 0),
    ] {
        let output = |out: Stdio| {
            let child = stentor().args(args).stdout(out).stderr(Stdio::piped()).spawn().unwrap();
            let output = child.wait_with_output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        assert_eq!(output(closed()), (Some(code), String::new()), "{args:?}");
        // But what was to be kept and is not there is an error.
        let (code, said) = output(full());
        assert!(code == Some(1) && said.contains("standard output: No space left"), "{args:?}: {code:?} {said}");
    }
}

#[test]
fn what_was_not_set_follows_what_was_and_two_that_were_set_are_both_named() {
    for args in [
        &["--max-message", "2MiB", "--max-held", "4MiB"][..],
        &["--max-subscriptions", "2000000"],
        &["--max-subscriptions-total", "10"],
        &["--max-assembly", "4KiB"],
        &["--retain", "128KiB"],
    ] {
        let (code, text) = said(&[&["--check", "--listen", "127.0.0.1:0"], args].concat());
        assert_eq!(code, Some(0), "{args:?}: {text}");
    }
    let (code, text) = said(&["--check", "--listen=127.0.0.1:0", "--max-message=2MiB", "--max-held=2MiB"]);
    assert_eq!(code, Some(1), "{text}");
    let error =
        "error: --max-held 2.0 MiB does not hold one message of --max-message 2.0 MiB: raise it to at least 2049 KiB";
    assert!(text.contains(error), "{text}");
}

#[test]
fn what_its_control_groups_let_it_have_is_seen() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("cgroup-{}", std::process::id()));
    let group = folder.join("tree/service");
    fs::create_dir_all(&group).unwrap();
    let write = |path: &str, text: &str| fs::write(folder.join(path), text).unwrap();
    write("cgroup", "0::/service\n");
    write("mountinfo", &format!("35 22 0:30 / {}/tree rw - cgroup2 cgroup2 rw\n", folder.display()));
    write("tree/cpu.max", "50000 100000\n");
    write("tree/service/memory.max", "104857600\n");
    // In a namespace of its own, what the kernel says of this process is laid over by what is written here.
    let around =
        "mount --bind $0/mountinfo /proc/$$/mountinfo && mount --bind $0/cgroup /proc/$$/cgroup && exec \"$@\"";
    let within = |args: &[&str]| {
        let mut command = Command::new("unshare");
        for (name, _) in stentor().get_envs() {
            command.env_remove(name);
        }
        let command = command.args(["--mount", "sh", "-c", around]).arg(&folder).arg(args[0]).args(&args[1..]);
        command.output().map(|output| (output.status.success(), String::from_utf8(output.stdout).unwrap()))
    };
    if within(&["true"]).is_ok_and(|(ok, _)| ok) {
        let program = stentor().get_program().to_str().unwrap().to_owned();
        let args = [&program, "--check", "--listen", "127.0.0.1:0", "--max-connections", "100"];
        let (_, text) = within(&args).unwrap();
        for part in [
            "# workers = 1  # default",
            "note: 1 worker, not pinned; ",
            "warning: 1 worker has 0.50 cores, by the CPU quota",
            "and there is 100.0 MiB for the control group of this process",
        ] {
            assert!(text.contains(part), "{part:?}: {text}");
        }
        let (_, text) = within(&[&args[..], &["--workers", "2", "--pin", "none"]].concat()).unwrap();
        assert!(text.contains("warning: 2 workers have 0.50 cores") && text.contains("or --workers 1"), "{text}");
    } else {
        skip("cgroup", "limits of a control group: nothing can be mounted here");
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_an_idle_connection_takes_is_one_figure_wherever_it_is_told() {
    let (_, text) = said(&["--check", "--listen", "127.0.0.1:0"]);
    let told = text.split(" here)").next().unwrap().rsplit(' ').next().unwrap();
    assert!(told.parse::<u64>().is_ok(), "{text}");
    let places = [
        ("README.md", format!("Idle connections cost {told} bytes each")),
        ("docs/performance.md", format!("connection is {told} bytes of the process")),
        ("docs/operations.md", format!("{told} bytes here and")),
        ("docs/operations.md", format!("**{told} bytes here**")),
        ("docs/operations.md", format!("idle ({told} B)")),
        ("results/2026-11-29-connections/README.md", format!("So {told} bytes:")),
    ];
    for (file, words) in places {
        let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
        assert!(fs::read_to_string(path).unwrap().contains(&words), "{file} doesn't say {words:?}");
    }
}

#[test]
fn check_beside_a_running_server_is_no_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, text) = said(&["--check", "--listen", &address, "--max-connections", "100"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(&format!("warning: --listen {address}: in use now")), "{text}");
}

#[test]
fn check_warns_when_nobody_could_publish_or_everybody() {
    let args = ["--check", "--listen", "0.0.0.0:0", "--max-connections", "100"];
    assert!(said(&args).1.contains("warning: no client may publish"));
    let open = said(&[&args[..], &["--anonymous-publish"]].concat()).1;
    assert!(open.contains("warning: anybody who reaches 0.0.0.0:0 may publish"), "{open}");
}

#[test]
fn completions_and_the_manual_are_printed() {
    let (code, script) = said(&["--completions", "bash"]);
    assert!(code == Some(0) && script.contains("complete ") && script.contains("--max-connections-per-ip"), "{script}");
    let (code, page) = said(&["--man"]);
    assert!(code == Some(0) && page.starts_with(".ie") || page.contains(".TH stentor 1"), "{page}");
}
