//! Which entry of an index is meant: the choice of a platform. Pure.

use stead_model::image::Platform;

use crate::manifest::{Descriptor, DescriptorPlatform};

/// The entries that suit the platform, the best first. Entries that do not say what they are for come last: they
/// may be indexes themselves, and an image says it in its configuration.
pub fn candidates<'a>(entries: &'a [Descriptor], wanted: &Platform) -> Vec<&'a Descriptor> {
    let mut ranked: Vec<(usize, &Descriptor)> =
        entries.iter().filter_map(|entry| Some((rank(entry.platform.as_ref(), wanted)?, entry))).collect();
    // A stable sort: among equals the first one counts, as other tools do it.
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, entry)| entry).collect()
}

/// Whether an image for `offered` is one for `wanted`.
pub fn suits(offered: &Platform, wanted: &Platform) -> bool {
    rank_of(offered, wanted).is_some()
}

fn rank_of(offered: &Platform, wanted: &Platform) -> Option<usize> {
    let variant = offered.variant.clone().unwrap_or_default();
    let offered =
        DescriptorPlatform { os: "linux".into(), architecture: offered.architecture.clone(), variant };
    rank(Some(&offered), wanted)
}

/// Of contents for these platforms the best one.
pub fn best<'a, T>(offered: &[(&Platform, &'a T)], wanted: &Platform) -> Option<&'a T> {
    let ranked =
        offered.iter().filter_map(|(platform, content)| Some((rank_of(platform, wanted)?, *content)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, content)| content)
}

/// The platform of this computer.
pub fn host_platform() -> Platform {
    let (architecture, variant) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", None),
        "x86" => ("386", None),
        "aarch64" => ("arm64", None),
        "arm" => ("arm", Some("v7")),
        "powerpc64" => ("ppc64le", None),
        "loongarch64" => ("loong64", None),
        // Go's word is the same as Rust's: riscv64, s390x.
        other => (other, None),
    };
    Platform { architecture: architecture.to_owned(), variant: variant.map(str::to_owned) }
}

const RANK_UNSAID: usize = usize::MAX;

/// How far an entry is from the best one, or none if it cannot be used.
fn rank(offered: Option<&DescriptorPlatform>, wanted: &Platform) -> Option<usize> {
    let Some(offered) = offered else { return Some(RANK_UNSAID) };
    if offered.os.is_empty() && offered.architecture.is_empty() {
        return Some(RANK_UNSAID);
    }
    let architecture = plain_architecture(&offered.architecture);
    if !matches!(offered.os.as_str(), "linux" | "")
        || architecture != plain_architecture(&wanted.architecture)
    {
        return None;
    }
    let usable = usable_variants(architecture, wanted.variant.as_deref());
    usable.iter().position(|variant| *variant == plain_variant(architecture, &offered.variant))
}

/// Go's word for a processor.
fn plain_architecture(architecture: &str) -> &str {
    match architecture {
        "x86_64" | "x86-64" => "amd64",
        "i386" | "i686" | "x86" => "386",
        "aarch64" => "arm64",
        "armhf" => "arm",
        other => other,
    }
}

/// The variant that is meant where none is written.
fn plain_variant<'a>(architecture: &str, variant: &'a str) -> &'a str {
    match (architecture, variant) {
        ("arm64", "") => "v8",
        ("arm", "") => "v7",
        ("amd64", "") => "v1",
        (_, variant) => variant,
    }
}

/// The variants whose programs run on this one, the best first.
fn usable_variants<'a>(architecture: &str, wanted: Option<&'a str>) -> Vec<&'a str> {
    let wanted = plain_variant(architecture, wanted.unwrap_or_default());
    let older: &[&str] = match architecture {
        "arm" => &["v8", "v7", "v6", "v5"],
        "amd64" => &["v4", "v3", "v2", "v1"],
        "arm64" => &["v9", "v8"],
        _ => &[],
    };
    match older.iter().position(|variant| *variant == wanted) {
        Some(at) => older.iter().skip(at).copied().collect(),
        None => vec![wanted],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The order in which entries, written `os/architecture[/variant]` or `-`, would be taken.
    #[track_caller]
    fn check(wanted: &str, offered: &str, expected: &str) {
        let entries: Vec<Descriptor> = offered
            .split_whitespace()
            .enumerate()
            .map(|(at, text)| {
                let mut parts = text.split('/').map(str::to_owned);
                let platform = (text != "-").then(|| DescriptorPlatform {
                    os: parts.next().unwrap_or_default(),
                    architecture: parts.next().unwrap_or_default(),
                    variant: parts.next().unwrap_or_default(),
                });
                Descriptor {
                    media_type: text.to_owned(),
                    digest: format!("sha256:{at:064x}").parse().unwrap(),
                    size_bytes: 1,
                    platform,
                    annotations: Default::default(),
                }
            })
            .collect();
        let wanted: Platform = wanted.parse().unwrap();
        let chosen: Vec<&str> =
            candidates(&entries, &wanted).iter().map(|entry| entry.media_type.as_str()).collect();
        assert_eq!(chosen.join(" "), expected);
    }

    #[test]
    fn the_platform_decides() {
        check("amd64", "linux/arm64 linux/amd64 linux/386", "linux/amd64");
        check("arm64", "linux/arm64/v8 linux/amd64", "linux/arm64/v8");
        check("arm64/v8", "linux/arm64 linux/amd64", "linux/arm64");
        check("386", "linux/amd64 linux/386", "linux/386");
        check("riscv64", "linux/amd64", "");
        check("s390x", "linux/s390x", "linux/s390x");
    }

    #[test]
    fn other_systems_and_attestations_are_never_taken() {
        check("amd64", "windows/amd64 unknown/unknown freebsd/amd64", "");
        check("amd64", "unknown/unknown linux/amd64", "linux/amd64");
    }

    #[test]
    fn the_newest_variant_that_runs_is_taken() {
        check("arm/v7", "linux/arm/v5 linux/arm/v6 linux/arm/v7", "linux/arm/v7 linux/arm/v6 linux/arm/v5");
        check("arm/v6", "linux/arm/v7 linux/arm/v5", "linux/arm/v5");
        check("arm", "linux/arm linux/arm/v6", "linux/arm linux/arm/v6");
        check("amd64", "linux/amd64/v3 linux/amd64", "linux/amd64");
        check(
            "amd64/v3",
            "linux/amd64 linux/amd64/v2 linux/amd64/v3 linux/amd64/v4",
            "linux/amd64/v3 linux/amd64/v2 linux/amd64",
        );
        check("ppc64le/power9", "linux/ppc64le linux/ppc64le/power9", "linux/ppc64le/power9");
    }

    #[test]
    fn the_first_of_equals_is_taken_and_those_who_do_not_say_come_last() {
        check("amd64", "- linux/amd64 linux/x86_64", "linux/amd64 linux/x86_64 -");
        check("arm64", "- -", "- -");
        check("amd64", "/ /amd64", "/amd64 /");
    }
}
