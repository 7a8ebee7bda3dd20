//! How much CPU time the cgroup of this process may use: the least that any group above it allows.
//!
//! Version 2 says it in `cpu.max` (`200000 100000`, or `max 100000`), version 1 in
//! `cpu.cfs_quota_us` (-1: no limit) and `cpu.cfs_period_us`. Both may be mounted at the same time,
//! with the controller in one of them.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// CPU time per time, if it is limited.
pub(super) fn read(root: &Path) -> Option<f64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).ok()?;
    groups
        .lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, group) = rest.split_once(':')?;
            let wanted = match controllers {
                "" => Wanted::V2,
                some if some.split(',').any(|one| one == "cpu") => Wanted::V1,
                _ => return None,
            };
            mounts.lines().find_map(|mount| {
                let (of, at) = mount_point(mount, wanted)?;
                least(root, &at, &within(&of, group))
            })
        })
        .reduce(f64::min)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    V1,
    V2,
}

/// The group that is mounted and where, if a line of mountinfo (proc(5)) is a mount of that kind:
/// `31 23 0:26 /group /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw`.
fn mount_point(line: &str, wanted: Wanted) -> Option<(PathBuf, PathBuf)> {
    let (mount, kind) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (of, at) = (mount.next()?, mount.next()?);
    let mut kind = kind.split(' ');
    let name = kind.next()?;
    let fits = match wanted {
        Wanted::V2 => name == "cgroup2",
        Wanted::V1 => name == "cgroup" && kind.nth(1)?.split(',').any(|option| option == "cpu"),
    };
    fits.then(|| (of.into(), at.into()))
}

/// The way from the mounted group to ours. In a container the path may lie outside what is mounted;
/// then the mounted group is the nearest that can be seen.
fn within(mounted: &Path, group: &str) -> PathBuf {
    let group = Path::new(group);
    let inside = group
        .strip_prefix(mounted)
        .unwrap_or_else(|_| Path::new(""));
    let goes_up = group.components().any(|part| part == Component::ParentDir);
    if goes_up {
        PathBuf::new()
    } else {
        inside.to_owned()
    }
}

/// The least quota on the way from the group up to the mount.
fn least(root: &Path, mount: &Path, inside: &Path) -> Option<f64> {
    let mount = root.join(mount.strip_prefix("/").unwrap_or(mount));
    inside
        .ancestors()
        .filter_map(|group| of_group(&mount.join(group)))
        .reduce(f64::min)
}

fn of_group(folder: &Path) -> Option<f64> {
    let text = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let (quota, period) = match text("cpu.max") {
        Some(max) => {
            let (quota, period) = max.trim().split_once(' ')?;
            (quota.parse::<f64>().ok()?, period.parse::<f64>().ok()?)
        }
        None => (
            text("cpu.cfs_quota_us")?.trim().parse::<f64>().ok()?,
            text("cpu.cfs_period_us")?.trim().parse::<f64>().ok()?,
        ),
    };
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "24 30 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
    const V1: &str = "33 32 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";

    /// What is read where these files are.
    fn quota(group: &str, mounts: &str, files: &[(&str, &str)]) -> Option<f64> {
        let root = tempfile::tempdir().expect("a directory");
        let files = [("proc/self/cgroup", group), ("proc/self/mountinfo", mounts)]
            .into_iter()
            .chain(files.iter().copied());
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
        read(root.path())
    }

    #[test]
    fn the_least_of_nested_groups_counts() {
        let unit = "0::/system.slice/keyserver.service\n";
        let slice = ("sys/fs/cgroup/system.slice/cpu.max", "150000 100000\n");
        let free = (
            "sys/fs/cgroup/system.slice/keyserver.service/cpu.max",
            "max 100000\n",
        );
        let tight = (
            "sys/fs/cgroup/system.slice/keyserver.service/cpu.max",
            "50000 100000\n",
        );
        assert_eq!(quota(unit, V2, &[slice, free]), Some(1.5));
        assert_eq!(quota(unit, V2, &[slice, tight]), Some(0.5));
        assert_eq!(quota(unit, V2, &[free]), None);
        assert_eq!(quota(unit, V2, &[]), None);
    }

    #[test]
    fn version_1_is_read_too() {
        let group = "4:cpu,cpuacct:/docker/1a2b\n3:memory:/docker/1a2b\n0::/docker/1a2b\n";
        let at = "sys/fs/cgroup/cpu,cpuacct/docker";
        let files = |quota| {
            [
                (format!("{at}/1a2b/cpu.cfs_quota_us"), quota),
                (format!("{at}/1a2b/cpu.cfs_period_us"), "100000\n"),
                (format!("{at}/cpu.cfs_quota_us"), "-1\n"),
                (format!("{at}/cpu.cfs_period_us"), "100000\n"),
            ]
        };
        for (text, expected) in [("400000\n", Some(4.0)), ("-1\n", None)] {
            let files = files(text);
            let files: Vec<_> = files
                .iter()
                .map(|(path, text)| (path.as_str(), *text))
                .collect();
            assert_eq!(quota(group, V1, &files), expected);
        }
    }

    #[test]
    fn a_container_sees_its_own_group_as_the_root() {
        let max = ("sys/fs/cgroup/cpu.max", "200000 100000\n");
        // With a namespace of its own, without one, and in a group beside the mounted one.
        let bind = V2.replace("0:22 / ", "0:22 /docker/1a2b ");
        for (group, mounts) in [
            ("0::/\n", V2),
            ("0::/docker/1a2b\n", bind.as_str()),
            ("0::/../other\n", V2),
        ] {
            assert_eq!(quota(group, mounts, &[max]), Some(2.0), "{group}");
        }
    }

    #[test]
    fn nonsense_is_no_limit() {
        let max = |text| quota("0::/\n", V2, &[("sys/fs/cgroup/cpu.max", text)]);
        for text in ["", "max", "0 100000", "-5 100000", "100000 0", "a b"] {
            assert_eq!(max(text), None, "{text:?}");
        }
        assert_eq!(quota("", "", &[]), None);
        assert_eq!(quota("0:\nx\n", "a - b\n", &[]), None);
    }
}
