//! An image of a CD (ISO 9660), made in memory: small files in one directory, for guests to be told things by.
//!
//! Names are written in capitals, as the format has it; Linux shows them small. See ECMA-119.

/// A sector, which everything begins at the start of.
const SECTOR: usize = 2048;
/// The first sectors are whoever's who boots from it; nobody does.
const SYSTEM_SECTORS: usize = 16;
const PATHS_LITTLE: usize = 18;
const PATHS_BIG: usize = 19;
const ROOT: usize = 20;

const IS_DIRECTORY: u8 = 2;

/// The image of a disk with this label (of `A`–`Z`) and these files. Pure.
pub(crate) fn iso(label: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let root_bytes = sectors(root(files, 1, 0).len()) * SECTOR;
    let first = ROOT + root_bytes / SECTOR;
    let directory = root(files, first, root_bytes);
    let total = first + files.iter().map(|(_, content)| sectors(content.len())).sum::<usize>();
    let mut image = vec![0; SYSTEM_SECTORS * SECTOR];
    append(&mut image, &volume(label, total, root_bytes));
    append(&mut image, b"\xffCD001\x01");
    append(&mut image, &path_table(u32::to_le_bytes, u16::to_le_bytes));
    append(&mut image, &path_table(u32::to_be_bytes, u16::to_be_bytes));
    append(&mut image, &directory);
    for (_, content) in files {
        append(&mut image, content);
    }
    image
}

fn sectors(bytes: usize) -> usize {
    bytes.div_ceil(SECTOR)
}

fn append(image: &mut Vec<u8>, bytes: &[u8]) {
    image.extend(bytes);
    image.resize(image.len().next_multiple_of(SECTOR), 0);
}

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Numbers stand there twice, the lowest byte first and the highest first.
fn both(value: usize) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&number(value).to_le_bytes());
    bytes[4..].copy_from_slice(&number(value).to_be_bytes());
    bytes
}

fn record(name: &[u8], sector: usize, bytes: usize, flags: u8) -> Vec<u8> {
    let mut record = vec![0, 0];
    record.extend(both(sector));
    record.extend(both(bytes));
    // The first day that it can say: the same content makes the same image.
    record.extend([70, 1, 1, 0, 0, 0, 0, flags, 0, 0, 1, 0, 0, 1]);
    record.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    record.extend(name);
    record.resize(record.len().next_multiple_of(2), 0);
    let length = u8::try_from(record.len()).unwrap_or(u8::MAX);
    record.iter_mut().take(1).for_each(|first| *first = length);
    record
}

/// The one directory: itself, the one above which it is as well, and the files from sector `first` on.
fn root(files: &[(&str, &[u8])], first: usize, root_bytes: usize) -> Vec<u8> {
    let mut records =
        vec![record(&[0], ROOT, root_bytes, IS_DIRECTORY), record(&[1], ROOT, root_bytes, IS_DIRECTORY)];
    let mut sector = first;
    let mut named = Vec::new();
    for (name, content) in files {
        let name = format!("{}.;1", name.to_ascii_uppercase());
        named.push((name.clone(), record(name.as_bytes(), sector, content.len(), 0)));
        sector += sectors(content.len());
    }
    named.sort();
    records.extend(named.into_iter().map(|(_, record)| record));
    let mut directory = Vec::new();
    for record in records {
        // None goes over the end of a sector.
        if directory.len() % SECTOR + record.len() > SECTOR {
            directory.resize(directory.len().next_multiple_of(SECTOR), 0);
        }
        directory.extend(record);
    }
    directory
}

fn path_table(long: fn(u32) -> [u8; 4], short: fn(u16) -> [u8; 2]) -> Vec<u8> {
    let mut table = vec![1, 0];
    table.extend(long(number(ROOT)));
    table.extend(short(1));
    table.extend([0, 0]);
    table
}

/// What the volume is.
fn volume(label: &str, total: usize, root_bytes: usize) -> Vec<u8> {
    let spaces = |text: &str, length: usize| format!("{text:length$.length$}").into_bytes();
    let twice = |value: u16| [value.to_le_bytes(), value.to_be_bytes()].concat();
    let mut volume = b"\x01CD001\x01\x00".to_vec();
    volume.extend(spaces("", 32));
    volume.extend(spaces(label, 32));
    volume.extend([0; 8]);
    volume.extend(both(total));
    volume.extend([0; 32]);
    volume.extend(twice(1));
    volume.extend(twice(1));
    volume.extend(twice(2048));
    volume.extend(both(path_table(u32::to_le_bytes, u16::to_le_bytes).len()));
    volume.extend(number(PATHS_LITTLE).to_le_bytes());
    volume.extend([0; 4]);
    volume.extend(number(PATHS_BIG).to_be_bytes());
    volume.extend([0; 4]);
    volume.extend(record(&[0], ROOT, root_bytes, IS_DIRECTORY));
    // The set, the publisher, the preparer, the application; three files about it.
    for length in [128, 128, 128, 128, 37, 37, 37] {
        volume.extend(spaces("", length));
    }
    // It was made, changed, expires and holds from no day on.
    for _ in 0..4 {
        volume.extend(*b"0000000000000000\0");
    }
    volume.push(1);
    volume
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn another_program_finds_the_label_and_the_files() {
        let big = vec![7; 5000];
        let image = iso("CIDATA", &[("user-data", b"#cloud-config\n"), ("meta-data", b"{}"), ("big", &big)]);
        assert_eq!(image.len() % SECTOR, 0);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seed.iso");
        std::fs::write(&path, &image).unwrap();
        let output = Command::new("/usr/sbin/blkid").arg("-p").arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("LABEL=\"CIDATA\"") && said.contains("TYPE=\"iso9660\""), "{said}");
        // Where the directory says that they are: after the two that stand for itself.
        let record = |name: &str| {
            let root = &image[ROOT * SECTOR..][..SECTOR];
            let at = root.windows(name.len()).position(|window| window == name.as_bytes()).unwrap() - 33;
            let number = |at: usize| u32::from_le_bytes(*root[at..].first_chunk().unwrap()) as usize;
            (number(at + 2), number(at + 10))
        };
        let (sector, length) = record("BIG.;1");
        assert_eq!(image[sector * SECTOR..][..length], big);
        let (sector, length) = record("USER-DATA.;1");
        assert_eq!(&image[sector * SECTOR..][..length], b"#cloud-config\n");
    }
}
