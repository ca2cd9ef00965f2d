//! Images that a provisioning service can check, convert and hand on, and no machine could boot.

use sha2::{Digest, Sha256};

/// ECMA-119 §6.1.2: the logical sector of a CD.
const SECTOR: usize = 2048;
/// 128 KiB: small, and large enough for whoever insists on reading more than the descriptors.
const ISO_SECTORS: u32 = 64;
const ROOT_DIRECTORY: u32 = 20;
const RAW_BYTES: usize = 1 << 20;

/// An ISO 9660 file system with an empty root directory and this volume identifier (at most 32 of
/// `A-Z0-9_`), by which a simulated machine can tell what it boots.
pub(crate) fn iso9660(volume: &str) -> Vec<u8> {
    let mut image = vec![0; ISO_SECTORS as usize * SECTOR];
    let mut put = |sector: usize, offset: usize, bytes: &[u8]| {
        let start = sector * SECTOR + offset;
        image[start..start + bytes.len()].copy_from_slice(bytes);
    };
    // §8.4, primary volume descriptor, by its byte positions there, counted from 0.
    put(16, 0, b"\x01CD001\x01");
    put(16, 8, &[b' '; 64]);
    put(16, 40, volume.as_bytes());
    put(16, 80, &both_u32(ISO_SECTORS));
    put(16, 120, &both_u16(1));
    put(16, 124, &both_u16(1));
    put(16, 128, &both_u16(2048));
    put(16, 132, &both_u32(10));
    put(16, 140, &18_u32.to_le_bytes());
    put(16, 148, &19_u32.to_be_bytes());
    put(16, 156, &directory_record(0));
    put(16, 190, &[b' '; 623]);
    put(16, 881, b"\x01");
    // §8.3, the descriptors' end; §9.4, both path tables with the root alone; §9.1, its two entries.
    put(17, 0, b"\xffCD001\x01");
    put(18, 0, &[&[1, 0][..], &ROOT_DIRECTORY.to_le_bytes(), &[1, 0, 0, 0]].concat());
    put(19, 0, &[&[1, 0][..], &ROOT_DIRECTORY.to_be_bytes(), &[0, 1, 0, 0]].concat());
    put(ROOT_DIRECTORY as usize, 0, &directory_record(0));
    put(ROOT_DIRECTORY as usize, 34, &directory_record(1));
    image
}

/// §9.1: the record of the root directory, named by one byte: 0 is itself and 1 its parent.
fn directory_record(name: u8) -> Vec<u8> {
    let mut record = vec![34, 0];
    record.extend(both_u32(ROOT_DIRECTORY));
    record.extend(both_u32(2048));
    record.extend([100, 1, 1, 0, 0, 0, 0]); // 2000-01-01
    record.extend([2, 0, 0]); // a directory
    record.extend(both_u16(1));
    record.extend([1, name]);
    record
}

/// §7.3.3: the number in both byte orders.
fn both_u32(number: u32) -> Vec<u8> {
    [number.to_le_bytes(), number.to_be_bytes()].concat()
}

/// §7.2.3: the same for two bytes.
fn both_u16(number: u16) -> Vec<u8> {
    [number.to_le_bytes(), number.to_be_bytes()].concat()
}

/// What is written to a disk as it is: 1 MiB in which each block differs from the others.
pub(crate) fn raw_disk() -> Vec<u8> {
    (0_u32..).flat_map(|block| Sha256::digest(block.to_be_bytes())).take(RAW_BYTES).collect()
}
