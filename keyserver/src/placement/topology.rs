//! Which CPUs are near each other, from `/sys/devices/system`.

use std::fs;
use std::path::Path;

/// CPUs by the last cache that they share, in the order of their first one. CPUs whose cache is
/// not described are missing.
pub(super) fn caches(root: &Path, cpus: &[usize]) -> Vec<Vec<usize>> {
    let mut domains: Vec<Vec<usize>> = cpus
        .iter()
        .filter_map(|cpu| last_cache(&root.join(format!("sys/devices/system/cpu/cpu{cpu}/cache"))))
        .collect();
    domains.sort();
    domains.dedup();
    domains
}

/// CPUs by memory node, in the order of their first one. Nodes without a CPU are missing.
pub(super) fn nodes(root: &Path) -> Vec<Vec<usize>> {
    let Ok(entries) = fs::read_dir(root.join("sys/devices/system/node")) else {
        return Vec::new();
    };
    let mut nodes: Vec<Vec<usize>> = entries
        .flatten()
        .filter(|entry| is_numbered(&entry.file_name().to_string_lossy(), "node"))
        .filter_map(|entry| list(&entry.path().join("cpulist")))
        .collect();
    nodes.sort();
    nodes
}

/// The CPUs that share the cache of the highest level in this folder.
fn last_cache(folder: &Path) -> Option<Vec<usize>> {
    let caches = fs::read_dir(folder).ok()?.flatten();
    let (_, path) = caches
        .filter(|entry| is_numbered(&entry.file_name().to_string_lossy(), "index"))
        .filter_map(|entry| {
            let level = fs::read_to_string(entry.path().join("level")).ok()?;
            Some((level.trim().parse::<u32>().ok()?, entry.path()))
        })
        .max()?;
    list(&path.join("shared_cpu_list"))
}

fn is_numbered(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A list that is not empty.
fn list(path: &Path) -> Option<Vec<usize>> {
    let cpus = parse(fs::read_to_string(path).ok()?.trim())?;
    (!cpus.is_empty()).then_some(cpus)
}

/// `0-3,8,10-11`, as the kernel writes sets of CPUs.
fn parse(text: &str) -> Option<Vec<usize>> {
    /// More CPUs than a kernel can have: a list beyond it is not one.
    const CPUS_MAX: usize = 1 << 16;
    let mut cpus = Vec::new();
    for range in text.split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= CPUS_MAX {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse("0-3,8,10-11"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
        assert_eq!(parse(""), Some(vec![]));
        for wrong in ["a", "1-", "-1", "0-99999999999", "0-70000", "1;2"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
