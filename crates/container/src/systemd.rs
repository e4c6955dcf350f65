//! What is to be known of a system's init before it runs.

use std::fs;
use std::path::Path;

use crate::place::Place;

/// The last version of systemd that works with cgroups of version 1.
pub(crate) const LAST_WITH_LEGACY: u32 = 255;

/// Where its library is, as distributions have it; in the third place below a directory per processor.
const PLACES: [&str; 3] = ["usr/lib/systemd", "usr/lib64/systemd", "usr/lib"];

/// The version of systemd in an image; nothing if its init is another.
pub(crate) fn version(place: &Place) -> Option<u32> {
    let trees = place.layers.iter().chain([&place.upper]);
    trees.flat_map(|tree| PLACES.iter().filter_map(|place| newest(&tree.join(place), 1))).max()
}

/// The newest version of the library in a directory, or in `systemd` of those so many levels below. Were one of them a
/// link that leads out of the image, all that came of it is what the container sees of its own cgroups.
fn newest(directory: &Path, levels: u32) -> Option<u32> {
    let entries = fs::read_dir(directory).ok()?.flatten();
    let found = entries.filter_map(|entry| {
        let name = entry.file_name();
        match name.to_str()?.strip_prefix("libsystemd-shared-") {
            Some(rest) => rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok(),
            None if levels > 0 && name.to_str()?.contains("-linux-") => {
                newest(&entry.path().join("systemd"), levels - 1)
            }
            None => None,
        }
    });
    found.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(files: &[&str], expected: Option<u32>) {
        let tree = tempfile::tempdir().unwrap();
        for file in files {
            let path = tree.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let found = PLACES.iter().filter_map(|place| newest(&tree.path().join(place), 1)).max();
        assert_eq!(found, expected);
    }

    #[test]
    fn its_version_is_found_where_distributions_have_it() {
        check(&["usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-252.so"], Some(252));
        check(&["usr/lib/systemd/libsystemd-shared-257.7-1.fc42.so"], Some(257));
        check(&["usr/lib64/systemd/libsystemd-shared-239.so", "usr/lib/os-release"], Some(239));
        check(&["usr/lib/systemd/other.so", "usr/lib/x86_64-linux-gnu/libc.so"], None);
    }
}
