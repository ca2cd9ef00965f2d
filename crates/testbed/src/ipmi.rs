//! `ipmi_sim` of OpenIPMI, an IPMI BMC that nobody here wrote, and `ipmitool`, such a client.
//!
//! `ipmi_sim` has cipher suite 3 and no SHA-256; it keeps of the boot flags only the device.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::UdpSocket;
use uuid::Uuid;

use crate::https::on_free_port;
use crate::kubectl::{run, write_private};
use crate::passwords::new_password;
use crate::process::{Process, Program};
use crate::{Error, Output, Part};

const USERNAME: &str = "admin";
/// Who may look, and nothing else.
const READER: &str = "watcher";
/// IPMI's longest password has 20 bytes; `ipmi_sim` cuts the last one off those in its file.
const PASSWORD_LENGTH: usize = 19;
const START_WITHIN: Duration = Duration::from_mins(1);
const LOG: &str = "ipmi_sim.log";

/// RMCP's presence ping (DSP0136), with tag 1.
const PING: [u8; 12] = [6, 0, 0xff, 6, 0, 0, 0x11, 0xbe, 0x80, 1, 0, 0];

/// What `ipmi_sim` asks about power and boot device, and tells to change. State is in files beside it; `stuck`, where it exists, lets
/// it agree to everything and do nothing.
const CHASSIS: &str = r#"
cd "$(dirname "$0")"
operation=$2
shift 2
echo "$operation $*" >>calls
while [ $# -gt 0 ]; do
  case $operation:$1 in
    get:*) echo "$1:$(cat "$1")"; shift ;;
    set:identify) shift 3 ;;
    set:*)
      if [ ! -e stuck ]; then
        case $1 in
          power | boot) echo "$2" >"$1" ;;
          shutdown) echo 0 >power ;;
        esac
      fi
      shift 2
      ;;
  esac
done
"#;

/// What `ipmi_sim` asks about its LAN channel.
const LAN: &str = r#"
operation=$2
shift 2
while [ $# -gt 0 ]; do
  case $operation:$1 in
    get:mac_addr) echo "$1:02:00:5e:20:00:01" ;;
    get:ip_addr) echo "$1:127.0.0.1" ;;
    get:subnet_mask) echo "$1:255.0.0.0" ;;
    get:ip_addr_src) echo "$1:static" ;;
    get:default_gw_ip_addr | get:backup_gw_ip_addr) echo "$1:0.0.0.0" ;;
    get:default_gw_mac_addr | get:backup_gw_mac_addr) echo "$1:00:00:00:00:00:00" ;;
    set:*) shift ;;
  esac
  shift
done
"#;

/// The BMC's commands for its controller, sensors and log: what `ipmi_sim_cmd(5)` describes.
const EMULATION: &str = "\
mc_setbmc 0x20
mc_add 0x20 0x20 no-device-sdrs 0x81 2 0x17 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
sensor_add 0x20 0 1 0x01 0x01
sensor_set_value 0x20 0 1 24 0
sensor_set_threshold 0x20 0 1 settable 111000 50 45 40 0 0 0
sensor_set_event_support 0x20 0 1 enable scanning per-state 000111111000000 000111111000000 000111111000000 000111111000000
sensor_add 0x20 0 2 0x02 0x01
sensor_set_value 0x20 0 2 200 0
sensor_set_event_support 0x20 0 2 enable scanning per-state 000111111000000 000111111000000 000111111000000 000111111000000
sensor_add 0x20 0 3 0x04 0x01
sensor_set_value 0x20 0 3 20 0
sensor_set_threshold 0x20 0 3 settable 000011 0 0 0 0 25 30
sensor_set_event_support 0x20 0 3 enable scanning per-state 000111111000000 000111111000000 000111111111111 000111111000000
sensor_set_bit 0x20 0 3 0 1 0
sensor_set_bit 0x20 0 3 1 1 0
sensor_add 0x20 0 4 0x01 0x01
sensor_set_value 0x20 0 4 0xf6 0
sensor_set_event_support 0x20 0 4 enable scanning per-state 000111111000000 000111111000000 000111111000000 000111111000000
sensor_add 0x20 0 5 37 0x6f
sensor_set_bit_clr_rest 0x20 0 5 1 1
sensor_set_event_support 0x20 0 5 enable scanning per-state 000000000000011 000000000000011 000000000000011 000000000000011
";

/// Sensors as `sdrcomp` wants them described: number, kind, entity, name and the lines that differ.
const ANALOG: [(u8, &str, &str, &str, &str); 4] = [
    (
        1,
        "Temperature",
        "system_board",
        "Inlet Temp",
        "analog_data_format unsigned\nbase_unit degrees_C\nm 1\nb 0\nr_exp 0\n",
    ),
    (
        2,
        "Voltage",
        "power_supply",
        "PSU1 Out",
        "analog_data_format unsigned\nbase_unit Volts\nm 61\nb 0\nr_exp -3\n",
    ),
    (
        3,
        "Fan",
        "fan_cooling_device",
        "Fan 1a",
        "analog_data_format unsigned\nbase_unit RPM\nm 100\nb 50\nr_exp 0\n",
    ),
    (
        4,
        "Temperature",
        "processor",
        "CPU1 Margin",
        "analog_data_format 2s_complement\nbase_unit degrees_C\nm 5\nb 0\nr_exp -1\n",
    ),
];

/// A running BMC; dropping it stops it.
#[derive(Debug)]
pub struct IpmiSim {
    // Dropped in this order: the BMC before its files.
    _process: Process,
    address: SocketAddr,
    programs: PathBuf,
    password: String,
    guid: Uuid,
    directory: TempDir,
}

impl IpmiSim {
    /// The machine's serial number in its FRU inventory.
    pub const SERIAL: &str = "SIM-0001";

    /// The MAC address of the BMC's interface.
    pub const MAC: &str = "02:00:5e:20:00:01";

    /// Starts a BMC of a machine that is off, with new passwords.
    pub async fn start() -> Result<Self, Error> {
        let programs = Part::OpenIpmi.programs().await?;
        let directory = tempfile::Builder::new()
            .prefix("bailiwick-ipmi-")
            .tempdir()
            .map_err(Error::file("make", "a temporary directory"))?;
        let here = directory.path();
        let mut password = new_password();
        password.truncate(PASSWORD_LENGTH);
        let guid = Uuid::new_v4();
        write_state(&programs, here).await?;
        let (process, port) = start_bmc(&programs, here, &password, guid).await?;
        let address = (Ipv4Addr::LOCALHOST, port).into();
        Ok(Self { _process: process, address, programs, password, guid, directory })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The administrator's name.
    pub fn username(&self) -> &'static str {
        USERNAME
    }

    /// The name of a user that may look and nothing else; the password is the same.
    pub fn reader(&self) -> &'static str {
        READER
    }

    /// The password of both.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The BMC's GUID, as it is sent.
    pub fn guid(&self) -> [u8; 16] {
        *self.guid.as_bytes()
    }

    /// Whether the machine is on.
    pub fn is_on(&self) -> Result<bool, Error> {
        Ok(self.read("power")?.trim() == "1")
    }

    /// What it boots from, in `ipmi_sim`'s words: `none`, `default`, `pxe`, `cdrom`, `bios`.
    pub fn boot_device(&self) -> Result<String, Error> {
        Ok(self.read("boot")?.trim().to_owned())
    }

    /// What the machine was told, in order: `set power 1`, `set reset 1`.
    pub fn orders(&self) -> Result<Vec<String>, Error> {
        let calls = self.read("calls")?;
        Ok(calls.lines().filter(|line| line.starts_with("set ")).map(ToOwned::to_owned).collect())
    }

    /// From now on the BMC agrees to every order and the machine does nothing.
    pub fn ignore_orders(&self) -> Result<(), Error> {
        write_private(&self.directory.path().join("stuck"), "")
    }

    /// ipmitool as this BMC's administrator.
    pub fn ipmitool(&self) -> Result<Ipmitool, Error> {
        Ipmitool::in_directory(&self.programs, self.address, USERNAME, &self.password)
    }

    fn read(&self, file: &str) -> Result<String, Error> {
        let path = self.directory.path().join(file);
        std::fs::read_to_string(&path).map_err(Error::file("read", path))
    }
}

/// What the machine is, and its state at the beginning.
async fn write_state(programs: &Path, here: &Path) -> Result<(), Error> {
    for (name, content) in
        [("power", "0\n"), ("boot", "default\n"), ("calls", ""), ("chassis", CHASSIS), ("lan", LAN)]
    {
        write_private(&here.join(name), content)?;
    }
    let fru = fru();
    let bytes: Vec<String> = fru.iter().map(u8::to_string).collect();
    let emulation = format!(
        "{EMULATION}mc_add_fru_data 0x20 0 {} data {}\nmc_enable 0x20\n{}",
        fru.len().next_multiple_of(8) + 64,
        bytes.join(" "),
        events()
    );
    write_private(&here.join("emulation"), &emulation)?;
    // The place where ipmi_sim looks: below its state, by its program's and its own name.
    let state = here.join("state/ipmi_sim/testbed");
    std::fs::create_dir_all(&state).map_err(Error::file("make", &state))?;
    write_private(&here.join("sensors"), &sensors())?;
    let compiled = run(None, &programs.join("sdrcomp"), &["sensors"], here, None).await?.success()?;
    write_private(&state.join("sdr.20.main"), &compiled)
}

/// Three events: a threshold crossed, the same left again, and one in a maker's own way.
fn events() -> String {
    // After a record's type come its thirteen bytes; 0x67 0x0b 0xe4 0x00 is a time in 2024.
    [
        "0x02 0x00 0xe4 0x0b 0x67 0x20 0x00 0x04 0x01 0x01 0x01 0x57 0x2a 0x28",
        "0x02 0x3c 0xe4 0x0b 0x67 0x20 0x00 0x04 0x01 0x01 0x81 0x57 0x26 0x28",
        "0xc0 0x78 0xe4 0x0b 0x67 0x91 0x12 0x00 0x01 0x02 0x03 0x04 0x05 0x06",
    ]
    .map(|event| format!("sel_add 0x20 {event}\n"))
    .concat()
}

fn sensors() -> String {
    let common = "sensor_owner_id 0x20\nsensor_owner_lun 0\nchannel_number 0\nentity_instance 1\n";
    let controller = "sdr type 18\ndevice_slave_address 0x20\ndevice_channel_number 0\nchassis true\nfru_inventory true\nsel true\n\
         sdr true\nsensor true\nentity_id system_board\nentity_instance 1\nid_string \"BMC\"\nendsdr\n";
    let analog = ANALOG.map(|(number, kind, entity, name, conversion)| {
        format!(
            "sdr type 1\n{common}sensor_number {number}\nentity_id {entity}\nsensor_type {kind}\ninit_scanning true\n\
             init_sensor_type true\ndefault_sensor_scan_on true\nevent_reading_type_code 1\nrate_unit none\n\
             modifier_unit none\npercentage false\nmodifier_unit_code unspecified\nlinearization linear\ntolerance 0\n\
             accuracy 1\naccuracy_exp 0\nsensor_direction input\nb_exp 0\nsensor_maximum 255\nsensor_minimum 0\n\
             {conversion}id_string \"{name}\"\nendsdr\n"
        )
    });
    let discrete = format!(
        "sdr type 2\n{common}sensor_number 5\nentity_id memory_module\nsensor_type Entity_Presence\n\
         event_reading_type_code 0x6f\nid_string \"DIMM a1\"\nendsdr\n"
    );
    [controller, &analog.concat(), &discrete].concat()
}

/// A FRU inventory with all three areas, made here from the specification alone, so that whoever reads it is not reading what
/// it wrote itself.
fn fru() -> Vec<u8> {
    let field = |text: &str| {
        let length = u8::try_from(text.len()).unwrap_or_default();
        [&[0xc0 | length][..], text.as_bytes()].concat()
    };
    let area = |head: &[u8], fields: &[&str]| {
        let mut bytes = [&[1, 0][..], head].concat();
        for text in fields {
            bytes.extend(field(text));
        }
        bytes.push(0xc1);
        while bytes.len() % 8 != 7 {
            bytes.push(0);
        }
        let units = u8::try_from((bytes.len() + 1) / 8).unwrap_or_default();
        if let Some(length) = bytes.get_mut(1) {
            *length = units;
        }
        with_checksum(bytes)
    };
    let chassis = area(&[23], &["CHP-88", "CHS-0001"]);
    let board = area(&[25, 0x40, 0xb9, 0xde], &["Board Works", "Mainboard X", "BRD-0001", "BRP-77", ""]);
    let product =
        area(&[25], &["Sim Servers", "Eight GPUs", "PRT-66", "rev B", IpmiSim::SERIAL, "asset 5", ""]);
    let mut offset = 1;
    let mut header = vec![1, 0];
    for area in [&chassis, &board, &product] {
        header.push(offset);
        offset += u8::try_from(area.len() / 8).unwrap_or_default();
    }
    header.extend([0, 0]);
    [with_checksum(header), chassis, board, product].concat()
}

fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    bytes.push(sum.wrapping_neg());
    bytes
}

async fn start_bmc(
    programs: &Path,
    here: &Path,
    password: &str,
    guid: Uuid,
) -> Result<(Process, u16), Error> {
    on_free_port(async |port| {
        write_private(&here.join("lan.conf"), &configuration(here, port, password, guid))?;
        let mut process = Process::start(Program {
            name: "ipmi_sim",
            path: programs.join("ipmi_sim"),
            arguments: ["-n", "-c", "lan.conf", "-f", "emulation", "-s", "state"]
                .map(ToOwned::to_owned)
                .to_vec(),
            environment: Vec::new(),
            directory: here,
            user: None,
            stop: Signal::KILL,
        })?;
        process.wait_until(START_WITHIN, async || answers(port).await.unwrap_or(false)).await?;
        // It goes on without its port when somebody else has it, who may have answered.
        let log = std::fs::read_to_string(here.join(LOG)).unwrap_or_default();
        if log.contains("Unable to bind") {
            return Err(Error::Ended { program: "ipmi_sim", status: "without its port".to_owned(), log });
        }
        Ok(process)
    })
    .await
}

/// The file that `ipmi_lan(5)` describes.
fn configuration(here: &Path, port: u16, password: &str, guid: Uuid) -> String {
    let guid = guid.simple();
    let chassis = here.join("chassis");
    let chassis = chassis.display();
    let lan = here.join("lan");
    let lan = lan.display();
    format!(
        "name \"testbed\"\n\
         set_working_mc 0x20\n\
         startlan 1\n\
         addr 127.0.0.1 {port}\n\
         priv_limit admin\n\
         allowed_auths_callback none md5\n\
         allowed_auths_user none md5\n\
         allowed_auths_operator none md5\n\
         allowed_auths_admin none md5\n\
         guid {guid}\n\
         lan_config_program \"/bin/sh {lan} 1\"\n\
         endlan\n\
         chassis_control \"/bin/sh {chassis} 0x20\"\n\
         user 2 true \"{USERNAME}\" \"{password}\" admin 10 none md5\n\
         user 3 true \"{READER}\" \"{password}\" user 10 none md5\n"
    )
}

/// Whether somebody answers a ping there within a moment.
async fn answers(port: u16) -> std::io::Result<bool> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect((Ipv4Addr::LOCALHOST, port)).await?;
    socket.send(&PING).await?;
    let mut buffer = [0; 64];
    let answer = tokio::time::timeout(Duration::from_millis(500), socket.recv(&mut buffer)).await;
    Ok(answer.is_ok_and(|received| received.is_ok()))
}

/// ipmitool with its `lanplus` interface at one BMC, whoever made that.
#[derive(Debug)]
pub struct Ipmitool {
    program: PathBuf,
    address: SocketAddr,
    username: String,
    suite: u8,
    directory: TempDir,
}

impl Ipmitool {
    /// At this BMC, as this user, with cipher suite 3.
    pub async fn new(address: SocketAddr, username: &str, password: &str) -> Result<Self, Error> {
        Self::in_directory(&Part::OpenIpmi.programs().await?, address, username, password)
    }

    fn in_directory(
        programs: &Path,
        address: SocketAddr,
        username: &str,
        password: &str,
    ) -> Result<Self, Error> {
        let directory = tempfile::Builder::new()
            .prefix("bailiwick-ipmitool-")
            .tempdir()
            .map_err(Error::file("make", "a temporary directory"))?;
        write_private(&directory.path().join("password"), password)?;
        let username = username.to_owned();
        Ok(Self { program: programs.join("ipmitool"), address, username, suite: 3, directory })
    }

    /// With another cipher suite.
    #[must_use]
    pub fn suite(mut self, suite: u8) -> Self {
        self.suite = suite;
        self
    }

    /// Runs `ipmitool ARGUMENTS` to its end.
    pub async fn run(&self, arguments: &[&str]) -> Result<Output, Error> {
        let (host, port) = (self.address.ip().to_string(), self.address.port().to_string());
        let suite = self.suite.to_string();
        let connection =
            ["-I", "lanplus", "-H", &host, "-p", &port, "-U", &self.username, "-f", "password", "-C", &suite];
        let arguments = [&connection[..], arguments].concat();
        run(None, &self.program, &arguments, self.directory.path(), None).await
    }
}
