//! What the control groups of this process let it have: processor time and memory.
//!
//! A container or a unit of systemd is a group, in groups in groups; each may have a limit, and the least on the way up counts. Version 2
//! has one tree of them (`cgroups(7)`), version 1 one for each kind of limit, and a system may have both, so both are looked at. What is
//! above the mount point is not to be seen from here: inside a container that is the container's own group.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::indexing_slicing))]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What there is of each; `None` for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share {
    /// Processor time, in cores: 0.5 is half of one.
    pub cores: Option<f64>,
    /// Memory, in bytes.
    pub memory: Option<u64>,
}

impl Share {
    /// That of this process.
    pub fn own() -> Share {
        Share::below(Path::new("/"))
    }

    /// The same of a system whose root is here.
    fn below(root: &Path) -> Share {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let groups = read("proc/self/cgroup");
        let mounts = read("proc/self/mountinfo");
        let mut share = Share::default();
        for mount in mounts.lines().filter_map(Mount::parse) {
            let Some(group) = groups.lines().find_map(|line| mount.group(line)) else { continue };
            let mount_point = root.join(mount.point.trim_start_matches('/'));
            for folder in way_up(&mount_point, &mount.inside(group)) {
                share = share.least(mount.limits(&folder));
            }
        }
        share
    }

    fn least(self, other: Share) -> Share {
        Share {
            cores: [self.cores, other.cores].into_iter().flatten().reduce(f64::min),
            memory: [self.memory, other.memory].into_iter().flatten().min(),
        }
    }
}

/// A tree of groups, as `/proc/PID/mountinfo` has it (`proc_pid_mountinfo(5)`).
#[derive(Debug)]
struct Mount {
    /// Which group of the tree is mounted there.
    top: String,
    point: String,
    is_second: bool,
    /// Of version 1: what it limits.
    controllers: Vec<String>,
}

impl Mount {
    /// `31 23 0:28 /top /point rw,relatime … - cgroup cgroup rw,cpu`
    fn parse(line: &str) -> Option<Mount> {
        let (fields, kind) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(3);
        let (top, point) = (unescaped(fields.next()?), unescaped(fields.next()?));
        let mut kind = kind.split(' ');
        let is_second = match kind.next()? {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        let controllers = kind.nth(1).unwrap_or_default().split(',').map(str::to_owned).collect();
        Some(Mount { top, point, is_second, controllers })
    }

    /// The group that a line of `/proc/PID/cgroup` (`4:memory:/a/b`, or `0::/a/b` for version 2) names in this tree.
    fn group<'l>(&self, line: &'l str) -> Option<&'l str> {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next()?, fields.next()?);
        let is_here = match self.is_second {
            true => controllers.is_empty(),
            false => controllers.split(',').any(|one| !one.is_empty() && self.controllers.iter().any(|c| c == one)),
        };
        is_here.then_some(group)
    }

    /// Where that group is, seen from the mount point: there, if it is outside of what is mounted.
    fn inside(&self, group: &str) -> PathBuf {
        let inside = Path::new(group).strip_prefix(&self.top).unwrap_or(Path::new(""));
        let is_plain = inside.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if is_plain { inside.to_owned() } else { PathBuf::new() }
    }

    /// What a group's own files say.
    fn limits(&self, folder: &Path) -> Share {
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
        if self.is_second {
            let quota = read("cpu.max").and_then(|text| {
                let (quota, period) = text.trim().split_once(' ')?;
                cores(quota.parse().ok()?, period.parse().ok()?)
            });
            return Share { cores: quota, memory: number("memory.max") };
        }
        // -1 is none.
        let quota = number("cpu.cfs_quota_us").zip(number("cpu.cfs_period_us"));
        Share { cores: quota.and_then(|(quota, period)| cores(quota, period)), memory: number("memory.limit_in_bytes") }
    }
}

fn cores(quota: u64, period: u64) -> Option<f64> {
    (period > 0).then(|| quota as f64 / period as f64)
}

/// A folder and those above it, up to the mount point.
fn way_up<'a>(mount_point: &'a Path, inside: &'a Path) -> impl Iterator<Item = PathBuf> + 'a {
    inside.ancestors().map(|part| mount_point.join(part))
}

/// A path as mountinfo writes it: blanks and the like as three octal digits.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (code, part.get(3..)) {
            (Some(code), Some(rest)) => out.extend([&*char::from(code).to_string(), rest]),
            _ => out.extend(["\\", part]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that stands for the root of a system.
    struct System(PathBuf);

    impl System {
        fn new(name: &str, groups: &str, mounts: &[&str], files: &[(&str, &str)]) -> System {
            let root = std::env::temp_dir().join(format!("stentor-cgroup-{}-{name}", std::process::id()));
            let system = System(root);
            system.write("proc/self/cgroup", groups);
            system
                .write("proc/self/mountinfo", &format!("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n{}\n", mounts.join("\n")));
            files.iter().for_each(|(path, text)| system.write(&format!("sys/fs/cgroup/{path}"), &format!("{text}\n")));
            system
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn share(&self) -> (Option<f64>, Option<u64>) {
            let Share { cores, memory } = Share::below(&self.0);
            (cores, memory)
        }
    }

    impl Drop for System {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const SECOND: &str = "35 22 0:30 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
    const CPU: &str = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct";
    const MEMORY: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory";

    #[test]
    fn of_version_2_the_least_on_the_way_up_counts() {
        let groups = "0::/system.slice/stentor.service\n";
        let files = [
            ("system.slice/stentor.service/cpu.max", "max 100000"),
            ("system.slice/stentor.service/memory.max", "1073741824"),
            ("system.slice/cpu.max", "150000 100000"),
            ("system.slice/memory.max", "536870912"),
            ("other.slice/memory.max", "4096"),
        ];
        let system = System::new("v2", groups, &[SECOND], &files);
        assert_eq!(system.share(), (Some(1.5), Some(512 << 20)));
        system.write("sys/fs/cgroup/system.slice/stentor.service/cpu.max", "50000 100000\n");
        assert_eq!(system.share().0, Some(0.5));
    }

    #[test]
    fn of_version_1_each_tree_has_its_own_way_up() {
        let groups = "4:memory:/a/b\n2:cpu,cpuacct:/a\n1:name=systemd:/c\n0::/\n";
        let files = [
            ("cpu,cpuacct/a/cpu.cfs_quota_us", "-1"),
            ("cpu,cpuacct/a/cpu.cfs_period_us", "100000"),
            ("cpu,cpuacct/cpu.cfs_quota_us", "25000"),
            ("cpu,cpuacct/cpu.cfs_period_us", "50000"),
            ("memory/a/b/memory.limit_in_bytes", "9223372036854771712"),
            ("memory/a/memory.limit_in_bytes", "268435456"),
        ];
        assert_eq!(System::new("v1", groups, &[CPU, MEMORY], &files).share(), (Some(0.5), Some(256 << 20)));
    }

    #[test]
    fn where_both_are_mounted_both_are_looked_at() {
        let unified = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        let files = [
            ("memory/x/memory.limit_in_bytes", "300"),
            ("unified/y/memory.max", "200"),
            ("unified/y/cpu.max", "300000 100000"),
        ];
        let system = System::new("both", "4:memory:/x\n0::/y\n", &[MEMORY, unified], &files);
        assert_eq!(system.share(), (Some(3.0), Some(200)));
    }

    #[test]
    fn in_a_container_the_mount_point_is_a_group_in_the_middle() {
        // Without a namespace of its own, the path is the host's; with one, what lies outside is /.. .
        let inner = "40 22 0:30 /docker/1f /sys/fs/cgroup ro - cgroup2 cgroup rw";
        for (name, groups, mount) in
            [("host", "0::/docker/1f\n", inner), ("own", "0::/\n", SECOND), ("outside", "0::/../../x\n", SECOND)]
        {
            let system = System::new(name, groups, &[mount], &[("cpu.max", "20000 100000")]);
            assert_eq!(system.share(), (Some(0.2), None), "{name}");
        }
        let system = System::new("deeper", "0::/docker/1f/sub\n", &[inner], &[("sub/cpu.max", "10000 100000")]);
        assert_eq!(system.share().0, Some(0.1));
    }

    #[test]
    fn what_is_not_there_or_makes_no_sense_is_no_limit() {
        let files = [("cpu.max", "10000 0"), ("memory.max", "max")];
        assert_eq!(System::new("none", "0::/\n", &[SECOND], &files).share(), (None, None));
        assert_eq!(System::new("nonsense", "0\n::\n", &["- cgroup2", "a b - cgroup"], &[]).share(), (None, None));
        assert_eq!(unescaped("/a\\040b\\0\\134"), "/a b\\0\\");
    }
}
