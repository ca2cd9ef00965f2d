//! The clean and deploy steps of an agent.

use base64::Engine as _;
use bytes::Bytes;
use serde_json::{Value, json};

use super::booted::{ConfigDrive, Disk, Erasure};
use super::fetch::{Checksum, Fetcher};
use super::hardware::{Device, Hardware};
use super::iso;

/// A configdrive is not unpacked further than this.
const UNPACKED: u64 = 64 << 20;

/// What a step did.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) result: Value,
    pub(crate) erased: Vec<Erasure>,
    pub(crate) disk: Option<Written>,
}

/// What is on the disk from now on.
#[derive(Debug)]
pub(crate) enum Written {
    Nothing,
    Image(Box<Disk>),
}

/// Does a step; the error is a sentence for Ironic.
pub(crate) async fn execute(step: &Value, hardware: &Hardware, fetcher: &Fetcher) -> Result<Done, String> {
    match step["step"].as_str().unwrap_or_default() {
        "erase_devices" => Ok(erase(step, &hardware.disks, "nvme-format-user-data", Some(Written::Nothing))),
        "erase_devices_metadata" => Ok(erase(step, &hardware.disks, "wipe-metadata", Some(Written::Nothing))),
        "erase_devices_express" => {
            Ok(erase(step, &hardware.disks, "nvme-format-crypto", Some(Written::Nothing)))
        }
        "erase_gpu_memory" => Ok(erase(step, &hardware.gpus, "gpu-reset-and-scrub", None)),
        "clear_tpm" if hardware.tpm => Ok(erase(step, &[Device::tpm()], "TPM2_Clear", None)),
        "write_image" => write_image(&step["args"], fetcher).await,
        other => Err(format!("there is no step {other} for this hardware")),
    }
}

fn erase(step: &Value, devices: &[Device], method: &str, disk: Option<Written>) -> Done {
    let record = |device: &Device| Erasure {
        step: step["step"].as_str().unwrap_or_default().to_owned(),
        device: device.name.clone(),
        serial: device.serial.clone(),
        method: method.to_owned(),
        result: "erased".to_owned(),
    };
    let erased: Vec<Erasure> = devices.iter().map(record).collect();
    Done { result: json!(erased), erased, disk }
}

async fn write_image(args: &Value, fetcher: &Fetcher) -> Result<Done, String> {
    let image = &args["image_info"];
    let urls: Vec<&str> = image["urls"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let checksum = Checksum::of(image)?;
    let mut failures = Vec::new();
    for url in &urls {
        let digest = match fetcher.verify(url, &checksum).await {
            Ok(Ok(digest)) => format!("{}:{digest}", checksum.name()),
            Ok(Err(found)) => {
                let (name, wanted) = (checksum.name(), &checksum);
                return Err(format!("{url} has the {name} checksum {found}, not {}", wanted.value()));
            }
            Err(error) => {
                failures.push(format!("{url}: {error}"));
                continue;
            }
        };
        let drive = args["configdrive"].as_str().or_else(|| image["configdrive"].as_str());
        let config = match drive {
            Some(drive) => configdrive(drive, fetcher).await?,
            None => ConfigDrive::default(),
        };
        let disk = Disk { image: (*url).to_owned(), digest, config };
        return Ok(Done {
            result: json!(format!("image {} was written", image["id"].as_str().unwrap_or_default())),
            disk: Some(Written::Image(Box::new(disk))),
            ..Done::default()
        });
    }
    Err(format!("the image cannot be fetched: {}", failures.join("; ")))
}

/// A configdrive as Ironic gives it: a URL, or the image itself, compressed by gzip and in base64. An image on a server may be plain.
pub(crate) async fn configdrive(drive: &str, fetcher: &Fetcher) -> Result<ConfigDrive, String> {
    let bytes = if drive.starts_with("http://") || drive.starts_with("https://") {
        fetcher.small(drive).await.map_err(|error| format!("the configdrive at {drive}: {error}"))?
    } else {
        Bytes::from(drive.to_owned())
    };
    let image = tokio::task::spawn_blocking(move || unpack(&bytes)).await;
    let image = image.map_err(|error| format!("the configdrive was not unpacked: {error}"))??;
    let file = |name: &str| iso::file(&image, &["openstack", "latest", name]);
    let json = |name: &str| file(name).and_then(|content| serde_json::from_slice(&content).ok());
    Ok(ConfigDrive {
        user_data: file("user_data"),
        meta_data: json("meta_data.json"),
        network_data: json("network_data.json"),
    })
}

fn unpack(bytes: &[u8]) -> Result<Bytes, String> {
    use std::io::Read as _;
    if iso::is_iso(bytes) {
        return Ok(Bytes::copy_from_slice(bytes));
    }
    let compact: Vec<u8> = bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let decoded = base64::engine::general_purpose::STANDARD.decode(compact);
    let packed = decoded.as_deref().unwrap_or(bytes);
    let mut image = Vec::new();
    let mut gunzip = flate2::read::GzDecoder::new(packed).take(UNPACKED);
    gunzip.read_to_end(&mut image).map_err(|error| format!("the configdrive is not gzip: {error}"))?;
    if iso::is_iso(&image) {
        Ok(Bytes::from(image))
    } else {
        Err("the configdrive is no ISO image".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn a_configdrive_is_unpacked_from_base64_and_gzip() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&iso::image("config-2", "")).unwrap();
        let text = base64::engine::general_purpose::STANDARD.encode(gzip.finish().unwrap());
        let fetcher = Fetcher::new().unwrap();
        assert_eq!(configdrive(&text, &fetcher).await.unwrap(), ConfigDrive::default());
        assert!(configdrive("bm90IGFuIGltYWdl", &fetcher).await.is_err());
    }

    #[tokio::test]
    async fn an_erasure_names_every_device_with_its_serial_number() {
        let hardware = Hardware::with_tpm();
        let fetcher = Fetcher::new().unwrap();
        let done = execute(&json!({"step": "clear_tpm"}), &hardware, &fetcher).await.unwrap();
        assert_eq!(done.result[0]["device"], "TPM");
        assert_eq!(done.result[0]["method"], "TPM2_Clear");
        let none = execute(&json!({"step": "clear_tpm"}), &Hardware::default(), &fetcher).await;
        assert!(none.unwrap_err().contains("clear_tpm"));
    }
}
